// The demo page, as a reader meets it. What it looks like lies in `screenshots` beside what was built.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open, screenshot } from "./browser.js";

// A picture that a CPU fits in a test's time.
const SMALL = "/demo/?size=64&gaussians=150";

let browser;
before(async () => {
  browser = await open();
});
after(() => browser.close());

const steps = async (page) => Number((await page.textContent("#rate")).replaceAll(",", "").match(/^\d+/)?.[0] ?? 0);
const losses = (page) =>
  Promise.all(["left", "right"].map(async (side) => Number((await page.textContent(`#${side}-loss`)).split(" ")[0])));
const reaches = (page, least) =>
  page.waitForFunction(
    (least) => Number(document.getElementById("rate").textContent.replaceAll(",", "").match(/^\d+/)?.[0] ?? 0) >= least,
    least,
    { timeout: 60_000 },
  );
/** Does something that makes the page begin anew, and waits until it has. */
async function restarts(page, act) {
  const run = await page.getAttribute("#app", "data-run");
  await act();
  await page.waitForFunction((run) => document.getElementById("app").dataset.run !== run, run, { timeout: 60_000 });
  assert.equal(await page.isVisible("#trouble"), false, await page.textContent("#trouble-text"));
}

/** Devices that the page asked for, so that a test can take them away. */
const keepDevices = () => {
  window.devices = [];
  const request = GPUAdapter.prototype.requestDevice;
  GPUAdapter.prototype.requestDevice = async function (...given) {
    const device = await request.apply(this, given);
    devices.push(device);
    return device;
  };
};

for (const [name, options] of [
  ["desktop-light", { viewport: { width: 1280, height: 900 }, colorScheme: "light" }],
  ["phone-dark", { viewport: { width: 390, height: 844 }, colorScheme: "dark" }],
]) {
  test(`the loss of both optimizers falls: ${name}`, { timeout: 120_000 }, async () => {
    const page = await browser.page(SMALL, options);
    await reaches(page, 60);
    const found = await losses(page);
    await screenshot(page, name);
    // The first loss is some 0.04.
    for (const loss of found) assert.ok(loss > 0 && loss < 4e-3, `losses are ${found}`);
    assert.match(await page.textContent("#adapter"), /GPU: .+/);
    assert.match(await page.textContent("#rate"), /steps\/s/);
    assert.equal(await page.isVisible("#trouble"), false);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(overflow <= 0, `the page is ${overflow} pixels too wide`);
    // Both canvases show a picture, not one colour.
    for (const id of ["target", "left", "right"]) {
      const colours = await page.evaluate(coloursOf, (await page.locator(`#${id}`).screenshot()).toString("base64"));
      assert.ok(colours > 30, `#${id} shows ${colours} colours`);
    }
    await browser.done(page);
  });
}

async function middleOf(png) {
  const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return [...context.getImageData(bitmap.width >> 1, bitmap.height >> 1, 1, 1).data].slice(0, 3);
}

async function coloursOf(png) {
  const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) found.add((data[i] >> 3) * 1024 + (data[i + 1] >> 3) * 32 + (data[i + 2] >> 3));
  return found.size;
}

test("by keyboard: pause, go on, reset, another optimizer", { timeout: 120_000 }, async () => {
  const page = await browser.page(SMALL);
  await reaches(page, 10);
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.getElementById("play").textContent === "Resume");
  // The frame that was begun ends.
  await page.waitForFunction(() => /^[\d,]+ steps$/.test(document.getElementById("rate").textContent));
  const paused = await steps(page);
  await page.waitForTimeout(500);
  assert.equal(await steps(page), paused);
  await restarts(page, () => page.keyboard.press("r"));
  await page.waitForFunction(() => document.getElementById("rate").textContent.startsWith("0 steps"));
  assert.equal(await page.textContent("#left-loss"), "");
  // What the fits begin with is drawn, though nothing runs.
  assert.ok((await page.evaluate(coloursOf, (await page.locator("#left").screenshot()).toString("base64"))) > 30);
  await page.keyboard.press("Space");
  await reaches(page, 5);
  const reached = [];
  for (let i = 0; i < 12; i++) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement.id));
  }
  const controls = ["play", "reset", "gaussians", "file", "left-recipe", "left-lr", "right-recipe", "right-lr", "right-ratio", "verify"];
  for (const id of controls) assert.ok(reached.includes(id), `Tab reaches ${reached}, not ${id}`);
  assert.equal(await page.isDisabled("#left-ratio"), true);
  await restarts(page, () => page.selectOption("#left-recipe", "mgup-lion"));
  assert.equal(await page.isDisabled("#left-ratio"), false);
  assert.equal(await page.textContent("#left-name"), "mgup-lion");
  await reaches(page, 5);
  await page.focus("#left-ratio");
  await restarts(page, () => page.keyboard.press("ArrowRight"));
  assert.equal(await page.textContent("#left-ratio-value"), "0.55");
  await page.focus("#right-lr");
  const before = Number(await page.textContent("#right-lr-value"));
  for (let i = 0; i < 10; i++) await page.keyboard.press("ArrowRight");
  assert.ok(Number(await page.textContent("#right-lr-value")) > before);
  await reaches(page, 10);
  // The optimizer has it too: a hundred times the rate throws the fit apart.
  await page.keyboard.press("End");
  await page.waitForFunction(() => {
    const [left, right] = ["left", "right"].map((side) => parseFloat(document.getElementById(`${side}-loss`).textContent));
    return right > 3 * left;
  });
  for (const name of ["Learning rate", "τ"]) assert.equal(await page.getByRole("slider", { name }).count(), 2, name);
  await browser.done(page);
});

test("every optimizer of the table can be chosen, and lowers the loss", { timeout: 300_000 }, async () => {
  const page = await browser.page(SMALL);
  await reaches(page, 1);
  const all = await page.evaluate(() => [...document.querySelectorAll("#left-recipe option")].map((option) => option.value));
  assert.ok(all.length >= 70, `${all}`);
  // Every policy with four bases, and the other bases: pipelines take long to compile.
  const names = all.filter((name) => /adamw|lion|muon|adago|^grams$/.test(name) || !name.includes("-"));
  await page.focus("#play");
  for (let i = 0; i < names.length; i += 2) {
    const pair = [names[i], names[Math.min(i + 1, names.length - 1)]];
    if ((await page.inputValue("#left-recipe")) !== pair[0]) await restarts(page, () => page.selectOption("#left-recipe", pair[0]));
    if ((await page.inputValue("#right-recipe")) !== pair[1]) await restarts(page, () => page.selectOption("#right-recipe", pair[1]));
    await page.waitForFunction(() => document.getElementById("right-loss").textContent !== "");
    const first = await Promise.all(["left", "right"].map(async (side) =>
      Number((await page.getAttribute(`#${side}-loss`, "title")).replace("began at ", ""))));
    await reaches(page, 12);
    const last = await losses(page);
    pair.forEach((name, side) => assert.ok(last[side] > 0 && last[side] < first[side], `${name}: ${first[side]} → ${last[side]}`));
  }
  await browser.done(page);
});

test("a picture of the reader's own, and what is no picture", { timeout: 120_000 }, async () => {
  const page = await browser.page(SMALL);
  await reaches(page, 5);
  const png = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(300, 100);
    const context = canvas.getContext("2d");
    context.fillStyle = "#2a6";
    context.fillRect(0, 0, 300, 100);
    context.fillStyle = "#fc0";
    context.fillRect(60, 20, 120, 60);
    const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
    return btoa(String.fromCharCode(...bytes));
  });
  const own = { name: "own.png", mimeType: "image/png", buffer: Buffer.from(png, "base64") };
  await restarts(page, () => page.setInputFiles("#file", own));
  const sizeOf = (id) => page.evaluate((id) => [document.getElementById(id).width, document.getElementById(id).height], id);
  assert.deepEqual(await sizeOf("left"), [64, 21]);
  const shown = (await page.locator("#target").screenshot()).toString("base64");
  assert.deepEqual(await page.evaluate(middleOf, shown), [0xff, 0xcc, 0x00]);
  await reaches(page, 30);
  for (const loss of await losses(page)) assert.ok(loss > 0 && loss < 0.02, `${loss}`);
  await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
  await page.waitForSelector("#trouble:not([hidden])");
  assert.match(await page.textContent("#trouble-text"), /notes\.txt is not a picture/);
  await restarts(page, () => page.click("#scene"));
  assert.deepEqual(await sizeOf("right"), [64, 48]);
  // Dropped onto the page.
  const drop = () => page.evaluate(async (png) => {
    const blob = await (await fetch(`data:image/png;base64,${png}`)).blob();
    const files = new DataTransfer();
    files.items.add(new File([blob], "dropped.png", { type: "image/png" }));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
  }, png);
  await restarts(page, drop);
  assert.deepEqual(await sizeOf("target"), [64, 21]);
  await reaches(page, 5);
  await browser.done(page);
});

test("a lost device is reported, and the page starts again", { timeout: 120_000 }, async () => {
  const page = await browser.page(SMALL, { before: keepDevices });
  await reaches(page, 5);
  await page.evaluate(() => devices[0].destroy());
  await page.waitForSelector("#trouble:not([hidden])");
  assert.match(await page.textContent("#trouble-text"), /The GPU was lost: .+ can start again/);
  for (const id of ["play", "reset", "gaussians", "left-recipe", "left-lr", "file"]) assert.equal(await page.isDisabled(`#${id}`), true, id);
  // Nothing takes the way back from the reader.
  await page.keyboard.press("r");
  await page.waitForTimeout(200);
  assert.equal(await page.isVisible("#again"), true);
  await screenshot(page, "lost");
  await restarts(page, () => page.click("#again"));
  await page.waitForFunction(() => devices.length === 2 && !document.getElementById("play").disabled);
  await reaches(page, 20);
  assert.equal(await page.isVisible("#trouble"), false);
  await browser.done(page);
});

test("where WebGPU is missing, the page says what to do", async () => {
  const page = await browser.page(SMALL, {
    before: () => Object.defineProperty(navigator, "gpu", { value: undefined }),
  });
  await page.waitForSelector("#trouble:not([hidden])");
  assert.match(await page.textContent("#trouble-text"), /no WebGPU.*current Chrome/);
  assert.equal(await page.isDisabled("#file"), true);
  await screenshot(page, "missing");
  await browser.done(page);
});

test("the reader can check the GPU, and the fits wait meanwhile", { timeout: 120_000 }, async () => {
  // `recipes.test.js` checks all of them.
  const page = await browser.page(`${SMALL}&check=adamw,mgup-lion,mgup-muon`);
  await reaches(page, 3);
  await page.click("#verify");
  await page.waitForFunction(() => document.getElementById("rate").textContent.endsWith("waiting for the check"));
  const paused = await steps(page);
  await page.waitForFunction(() => document.getElementById("verdict").textContent.startsWith("All "), null, { timeout: 60_000 });
  assert.equal(await page.textContent("#verdict"), "All 30 cases passed on this GPU.");
  await reaches(page, paused + 5);
  await browser.done(page);
});

test("frames and restarts leave no buffer behind", { timeout: 120_000 }, async () => {
  const page = await browser.page(SMALL, {
    before: () => {
      window.buffers = 0;
      const alive = new WeakSet();
      const create = GPUDevice.prototype.createBuffer;
      GPUDevice.prototype.createBuffer = function (...given) {
        const buffer = create.apply(this, given);
        alive.add(buffer);
        buffers++;
        return buffer;
      };
      const destroy = GPUBuffer.prototype.destroy;
      GPUBuffer.prototype.destroy = function () {
        if (alive.delete(this)) buffers--;
        return destroy.call(this);
      };
    },
  });
  await reaches(page, 10);
  const first = await page.evaluate(() => buffers);
  await reaches(page, 40);
  assert.equal(await page.evaluate(() => buffers), first);
  for (let i = 0; i < 4; i++) await page.keyboard.press("r");
  await restarts(page, () => page.keyboard.press("r"));
  await reaches(page, 10);
  // What the starts before left is freed when they notice.
  await page.waitForFunction((first) => buffers === first, first);
  await browser.done(page);
});
