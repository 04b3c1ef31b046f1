// A server of static files, for this machine alone.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".wasm": "application/wasm",
  ".wgsl": "text/plain; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Serves a folder on this machine, and what `pages` holds: texts by path. Without a port, on any that is free. */
export async function serve(folder, { pages = {}, port = 0 } = {}) {
  const server = createServer(async (request, response) => {
    try {
      let path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
      if (path.endsWith("/")) path += "index.html";
      const type = { "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
      if (path in pages) return response.writeHead(200, type).end(pages[path]);
      const file = join(folder, path);
      if (!(await stat(file)).isFile()) throw new Error("not a file");
      createReadStream(file).pipe(response.writeHead(200, type));
    } catch {
      response.writeHead(404).end("not found");
    }
  });
  await new Promise((listening, failed) => server.once("error", failed).listen(port, "127.0.0.1", listening));
  return { server, origin: `http://localhost:${server.address().port}` };
}
