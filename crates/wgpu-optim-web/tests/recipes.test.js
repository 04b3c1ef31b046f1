// Recipes in a browser, beside the CPU reference that is compiled into the same module: AdamW, Lion and Muon under every policy, and every
// third of the others. All of them, if the environment has WGPU_OPTIM_ALL_RECIPES.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open } from "./browser.js";

let browser;
before(async () => {
  browser = await open();
});
after(() => browser.close());

/** Runs cases in a page and returns their verdicts. */
async function verify(page, options) {
  return page.evaluate(async (options) => {
    const { default: init, Gpu } = await import("/package/wgpu_optim.js");
    await init();
    return (await Gpu.open()).verify(options);
  }, options);
}

test("recipes hold on tensors of many sizes", { timeout: 600_000 }, async () => {
  const page = await browser.page();
  const all = await page.evaluate(async () => {
    const { default: init, recipes } = await import("/package/wgpu_optim.js");
    await init();
    return recipes();
  });
  const isOne = (name, i) => process.env.WGPU_OPTIM_ALL_RECIPES || i % 3 === 0 || /^([a-z]+-)*(adamw|lion|muon)(-approximate)?$/.test(name);
  const named = all.filter(isOne);
  assert.ok(named.length >= 40, `${named.length} recipes`);
  const verdicts = await verify(page, { maxSize: 70_000, recipes: named });
  for (const verdict of verdicts) {
    assert.equal(verdict.failure, undefined, `${verdict.recipe} on ${verdict.shape}`);
    assert.ok(verdict.maxError < 1e-2, `${verdict.recipe} on ${verdict.shape}: ${verdict.maxError}`);
  }
  for (const name of named) {
    const shapes = verdicts.filter(({ recipe }) => recipe === name).map(({ shape }) => shape);
    // Bases that differ from AdamW only in the direction of a coordinate have fewer.
    const least = /adamw|lion|muon|adago|namo/.test(name) && !name.includes("schedule-free") ? 9 : 4;
    assert.ok(shapes.length >= least, `${name} ran on ${shapes.length} tensors`);
  }
  console.log(`${verdicts.length} cases of ${named.length} recipes hold`);
  await browser.done(page);
});

test("selection holds on a million coordinates", { timeout: 300_000 }, async () => {
  const page = await browser.page();
  const verdicts = await verify(page, { recipes: ["mgup-adamw"] });
  assert.deepEqual(verdicts.at(-1).shape, [1_000_003]);
  for (const { failure, shape } of verdicts) assert.equal(failure, undefined, `mgup-adamw on ${shape}`);
  await browser.done(page);
});

test("a wrong gradient is found", { timeout: 120_000 }, async () => {
  // A negative control: a bit of every gradient that is written is flipped.
  const page = await browser.page("/blank.html", {
    before: () => {
      const write = GPUQueue.prototype.writeBuffer;
      GPUQueue.prototype.writeBuffer = function (buffer, offset, data, ...range) {
        if (!buffer.label.includes("arena.grad")) return write.call(this, buffer, offset, data, ...range);
        const copy = ArrayBuffer.isView(data)
          ? data.slice(range[0] ?? 0, range[1] === undefined ? undefined : (range[0] ?? 0) + range[1])
          : data.slice(...range);
        new Uint8Array(copy.buffer ?? copy)[3] ^= 0x80;
        return write.call(this, buffer, offset, copy);
      };
    },
  });
  const verdicts = await verify(page, { recipes: ["adamw"], maxSize: 4096 });
  assert.ok(verdicts.length > 0);
  for (const { failure, shape } of verdicts) assert.match(failure ?? "", /instead of/, `adamw on ${shape}`);
  await browser.done(page);
});
