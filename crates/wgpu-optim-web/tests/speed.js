// What the package costs in a browser: time to the first step, and steps of a million parameters and of the demo's pipeline.
// Run by scripts/bench-web.sh, beside the native build on the same adapter.

import { open } from "./browser.js";

const SAMPLES = 7;
const browser = await open();

/** Milliseconds, each in a fresh page. */
async function samples(body, argument) {
  const found = [];
  for (let i = 0; i < SAMPLES; i++) {
    const page = await browser.page();
    found.push(await page.evaluate(body, argument));
    await page.close();
  }
  return found;
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const row = (what, value) => console.log(`${what.padEnd(52)} ${value}`);

const starts = await samples(async () => {
  const at = [performance.now()];
  const { default: init, Gpu } = await import("/package/wgpu_optim.js");
  await init();
  at.push(performance.now());
  const gpu = await Gpu.open();
  const optimizer = await gpu.createOptimizer({ tensors: [{ name: "w", shape: [1 << 20] }], recipe: "mgup-adamw" });
  at.push(performance.now());
  await optimizer.step();
  await gpu.device.queue.onSubmittedWorkDone();
  at.push(performance.now());
  return at.slice(1).map((time, i) => time - at[i]);
});
["the module: fetched and compiled", "GPU, buffers and pipelines (mgup-adamw)", "first step"].forEach((what, i) => {
  row(what, `${median(starts.map((times) => times[i])).toFixed(0)} ms`);
});

for (const recipe of ["adamw", "mgup-adamw"]) {
  const found = await samples(async (recipe) => {
    const { default: init, Gpu } = await import("/package/wgpu_optim.js");
    await init();
    const gpu = await Gpu.open();
    const optimizer = await gpu.createOptimizer({ tensors: [{ name: "w", shape: [1 << 20] }], recipe });
    optimizer.writeGrad("w", Float32Array.from({ length: 1 << 20 }, (_, i) => Math.sin(i * i)));
    for (let step = 0; step < 3; step++) await optimizer.step();
    await gpu.device.queue.onSubmittedWorkDone();
    const begun = performance.now();
    for (let step = 0; step < 20; step++) await optimizer.step();
    await gpu.device.queue.onSubmittedWorkDone();
    return (performance.now() - begun) / 20;
  }, recipe);
  row(`${recipe}, 1,048,576 parameters`, `${median(found).toFixed(2)} ms/step, ${((median(found) * 1e6) / (1 << 20)).toFixed(2)} ns/param`);
}

const fits = await samples(async () => {
  const { default: init, Gpu } = await import("/demo/package/wgpu_optim.js");
  await init();
  const { Fit, Picture, Pipelines, tensors } = await import("/demo/fit.js");
  const gpu = await Gpu.open();
  const picture = new Picture(await Pipelines.compile(gpu.device), { width: 128, height: 96, gaussians: 500 });
  const optimizer = await gpu.createOptimizer({ tensors: tensors(500), recipe: "mgup-adamw", lr: 0.02 });
  const fit = new Fit(picture, optimizer);
  await fit.step();
  await fit.fetchLosses();
  const begun = performance.now();
  for (let step = 0; step < 50; step++) await fit.step();
  await fit.fetchLosses();
  return (50 * 1000) / (performance.now() - begun);
});
row("the demo's pipeline, 500 Gaussians, 128 × 96", `${median(fits).toFixed(1)} steps/s`);
await browser.close();
