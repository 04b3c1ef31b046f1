// The packed package, installed into an empty project: its types, and the page of its README.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { BUILT, open } from "./browser.js";

const HERE = fileURLToPath(new URL("..", import.meta.url));
let project, browser;

before(async () => {
  project = await mkdtemp(join(tmpdir(), "wgpu-optim-project-"));
  const npm = (...given) => execFileSync("npm", given, { cwd: project, encoding: "utf8" });
  npm("init", "--yes");
  npm("install", "--silent", "--no-audit", "--no-fund", "--offline", join(BUILT, "wgpu-optim-0.1.0.tgz"));
  const readme = await readFile(join(project, "node_modules/wgpu-optim/README.md"), "utf8");
  await writeFile(join(project, "index.html"), readme.match(/```html\n([^]*?)```/)[1]);
  browser = await open(project, { "/favicon.ico": "" });
});

after(async () => {
  await browser?.close();
  await rm(project, { recursive: true, force: true });
});

test("it holds what a project needs, and nothing else", async () => {
  const files = await readdir(join(project, "node_modules/wgpu-optim"));
  const expected = ["LICENSE-APACHE", "LICENSE-MIT", "README.md", "package.json", "wgpu_optim.d.ts", "wgpu_optim.js"];
  assert.deepEqual(files.sort(), [...expected, "wgpu_optim_bg.wasm"].sort());
});

test("the page of the README trains", { timeout: 120_000 }, async () => {
  const page = await browser.page("/index.html");
  await page.waitForFunction(() => document.getElementById("result").textContent.startsWith("sin x ≈"), null, { timeout: 60_000 });
  const found = (await page.textContent("#result")).slice(8).split(", ").map(Number);
  // The least-squares solution.
  [0, 0.8779, 0, -0.0986].forEach((best, i) => assert.ok(Math.abs(found[i] - best) < 2e-3, `c${i} is ${found[i]}`));
  await browser.done(page);
});

test("its types hold, for what is right and what is not", async () => {
  await writeFile(
    join(project, "program.mts"),
    `
import init, { Gpu, GpuOptimizer, recipe, recipes, type OptimizerOptions, type Recipe, type Verdict } from "wgpu-optim";

await init();
const mgup: Recipe = { base: { type: "muon", nsSteps: 5, fallback: { type: "adamw", lr: 1e-3 } }, policy: { type: "mgup", ratio: 0.3 } };
const options: OptimizerOptions = {
  tensors: [{ name: "w", shape: [64, 32], layout: "in_out" }, { name: "b", shape: [64], group: 1, components: 4 }],
  groups: [{ recipe: mgup }, { recipe: recipes()[0]!, lr: 1e-3, schedule: { type: "cosine", steps: 100, floor: 0, warmup: 10 } }],
  maxGradNorm: 1,
  gradScaler: {},
  precision: "bf16",
};
const gpu: Gpu = await Gpu.open({ requiredFeatures: ["timestamp-query"] });
using optimizer: GpuOptimizer = await gpu.createOptimizer(options);
const device: GPUDevice = optimizer.device;
const entries: GPUBindGroupEntry[] = [{ binding: 0, resource: optimizer.param("w") }];
const values: Float32Array = await optimizer.readParam("w");
await optimizer.step();
const share: number = optimizer.takeTelemetry()?.tensors[0]?.alignment ?? 0;
const { base, policy } = recipe("mgup-adamw");
if (policy?.type === "mgup") policy.ratio = 0.4;
if (base.type === "adamw") base.betas = [0.9, 0.99];
const verdicts: Verdict[] = await gpu.verify({ maxSize: 100 }, ({ failure }) => console.log(failure));
// @ts-expect-error: a policy that does not exist
const unknown: Recipe = { base: { type: "adamw" }, policy: { type: "magic" } };
// @ts-expect-error: no such option
await gpu.createOptimizer({ ...options, learningRate: 1 });
// @ts-expect-error: a tensor's name is a string
optimizer.param(0);
export { device, entries, values, share, verdicts, unknown };
`,
  );
  const compiler = join(HERE, "node_modules/.bin/tsc");
  const strict = ["--noEmit", "--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes"];
  const target = ["--target", "esnext", "--module", "nodenext", "--lib", "esnext,dom,dom.iterable"];
  try {
    execFileSync(compiler, [...strict, ...target, "program.mts"], { cwd: project, encoding: "utf8" });
  } catch (error) {
    assert.fail(error.stdout);
  }
});
