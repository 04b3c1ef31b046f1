// Serves a folder on this machine: node serve.js FOLDER PORT

import { serve } from "./static.js";

const [folder, port] = process.argv.slice(2);
try {
  const { origin } = await serve(folder, { port: Number(port) });
  console.log(`The demo page is at ${origin}/ until you press Ctrl-C.`);
} catch (error) {
  if (error.code !== "EADDRINUSE") throw error;
  console.error(`Port ${port} is taken: name another one, as in ./scripts/demo.sh 8080`);
  process.exit(1);
}
