// The page: controls, two fits, and a loop that gives the GPU as many steps as it can take.
//
// ?size=, ?gaussians=, ?left=, ?right= choose what it begins with; ?check= names the recipes that it checks, with commas between them.

import init, { Gpu, recipe, recipes } from "./package/wgpu_optim.js";
import { drawChart } from "./chart.js";
import { Fit, Picture, Pipelines, tensors } from "./fit.js";

const MOST_STEPS = 10_000;
// What needs a GPU.
const CONTROLS = ["play", "reset", "gaussians", "file", "scene", "left-recipe", "left-lr", "right-recipe", "right-lr", "verify"];
// Milliseconds that the steps of a frame may take.
const FRAME = [8, 20];

const at = (id) => document.getElementById(id);
const wanted = new URLSearchParams(location.search);

/** A half of the page: an optimizer and its fit. */
class Side {
  constructor(id, recipeName) {
    this.id = id;
    this.fit = null;
    this.context = at(id).getContext("webgpu");
    this.recipeSelect = at(`${id}-recipe`);
    this.lrInput = at(`${id}-lr`);
    this.ratioInput = at(`${id}-ratio`);
    this.recipeSelect.append(...groupsOfRecipes());
    this.recipeSelect.value = recipeName;
    this.recipeSelect.addEventListener("change", () => {
      this.lrInput.value = 0;
      restart();
    });
    this.lrInput.addEventListener("input", () => {
      this.label();
      if (isReady && this.fit) this.fit.optimizer.setLr(this.lr);
    });
    this.ratioInput.addEventListener("input", () => this.label());
    this.ratioInput.addEventListener("change", () => restart());
    this.label();
  }

  get name() {
    return this.recipeSelect.value;
  }

  /** The recipe, as `createOptimizer` takes it. */
  get recipe() {
    const chosen = recipe(this.name);
    if ("ratio" in chosen.policy) chosen.policy.ratio = this.ratioInput.valueAsNumber;
    return chosen;
  }

  get lr() {
    const { base } = recipe(this.name);
    return (learningRates[base.type] ?? base.lr) * 10 ** this.lrInput.valueAsNumber;
  }

  label() {
    const chosen = recipe(this.name);
    at(`${this.id}-name`).textContent = this.name;
    at(`${this.id}-lr-value`).textContent = this.lr.toPrecision(2);
    this.lrInput.setAttribute("aria-valuetext", this.lr.toPrecision(2));
    this.ratioInput.disabled = !("ratio" in chosen.policy);
    at(`${this.id}-ratio-value`).textContent = this.ratioInput.disabled ? "–" : this.ratioInput.value;
  }

  report() {
    const loss = this.fit.losses.at(-1);
    const text = loss === undefined ? "" : `${loss.toExponential(2)} · ${(-10 * Math.log10(loss)).toFixed(2)} dB`;
    at(`${this.id}-loss`).textContent = text;
    at(`${this.id}-loss`).title = loss === undefined ? "" : `began at ${this.fit.losses[0].toExponential(2)}`;
  }
}

let gpu, pipelines, picture, learningRates, sides;
/** Pixels of the reader's picture. */
let ownPicture = null;
let isRunning = true;
/** Whether there is a GPU to work with. */
let isReady = false;
/** While the GPU is checked, fits wait. */
let isChecking = false;
/** Grows with every restart: what began before one is out of date. */
let generation = 0;
let stepsOfFrame = 1;

async function start() {
  at("trouble").hidden = true;
  at("app").setAttribute("aria-busy", "true");
  await init();
  learningRates ??= await (await fetch("learning_rates.json")).json();
  gpu = await Gpu.open({ powerPreference: "high-performance" });
  const { device } = gpu;
  device.lost.then((info) => lost(device, info));
  device.addEventListener("uncapturederror", (event) => trouble(event.error.message));
  at("adapter").textContent = `GPU: ${adapterName(device)}`;
  pipelines = await Pipelines.compile(device);
  sides ??= [new Side("left", wanted.get("left") ?? "adamw"), new Side("right", wanted.get("right") ?? "mgup-adamw")];
  for (const side of sides) side.fit = null;
  picture = null;
  if (gpu.lost !== undefined) return;
  isReady = true;
  for (const id of CONTROLS) at(id).disabled = false;
  for (const side of sides) side.label();
  await restart();
  at("app").setAttribute("aria-busy", "false");
}

/** Makes both fits anew, as the controls are. */
async function restart() {
  if (!isReady) return;
  const mine = ++generation;
  for (const side of sides) side.label();
  const gaussians = Number(at("gaussians").value);
  let next;
  const optimizers = [];
  const giveUp = () => {
    for (const optimizer of optimizers) optimizer.dispose();
    next?.destroy();
  };
  try {
    next = new Picture(pipelines, { gaussians, ...(ownPicture ?? sceneSize()) });
    for (const side of sides) {
      const options = { tensors: tensors(gaussians), recipe: side.recipe, lr: side.lr };
      optimizers.push(await (side.fit ? side.fit.optimizer.sibling(options) : gpu.createOptimizer(options)));
      // Another restart came meanwhile.
      if (mine !== generation) return giveUp();
    }
    const fits = optimizers.map((optimizer) => new Fit(next, optimizer));
    for (const side of sides) side.fit?.destroy();
    picture?.destroy();
    picture = next;
    sides.forEach((side, i) => {
      side.fit = fits[i];
      // It may have been changed meanwhile.
      side.fit.optimizer.setLr(side.lr);
    });
  } catch (error) {
    giveUp();
    if (mine !== generation) return;
    trouble(error.message, !isReady);
    // What ran before goes on.
    if (picture) run(mine);
    return;
  }
  at("trouble").hidden = true;
  at("rate").textContent = "";
  at("scene").hidden = ownPicture === null;
  for (const id of ["target", "left", "right"]) {
    const canvas = at(id);
    [canvas.width, canvas.height] = [picture.width, picture.height];
    canvas.style.aspectRatio = `${picture.width} / ${picture.height}`;
    canvas.getContext("webgpu").configure({ device: gpu.device, format: pipelines.format, alphaMode: "opaque" });
  }
  picture.show(at("target").getContext("webgpu"));
  for (const side of sides) {
    side.fit.render();
    side.fit.show(side.context);
    side.report();
  }
  chart();
  stepsOfFrame = 1;
  at("app").dataset.run = mine;
  run(mine);
}

/** Gives the GPU steps, frame by frame, until something else begins. */
async function run(mine) {
  let [since, steps] = [performance.now(), 0];
  const isCurrent = () => isReady && mine === generation;
  try {
    while (isCurrent()) {
      await frame();
      if (!isCurrent()) return;
      const taken = sides[0].fit.losses.length;
      if (!isRunning || isChecking || taken >= MOST_STEPS) {
        const why = taken >= MOST_STEPS ? ": finished" : isChecking ? ": waiting for the check" : "";
        at("rate").textContent = `${taken.toLocaleString("en")} steps${why}`;
        [since, steps] = [performance.now(), 0];
        continue;
      }
      const begun = performance.now();
      for (let i = 0; i < stepsOfFrame; i++) {
        for (const side of sides) await side.fit.step();
      }
      for (const side of sides) side.fit.show(side.context);
      await Promise.all(sides.map((side) => side.fit.fetchLosses()));
      if (!isCurrent()) return;
      const took = performance.now() - begun;
      steps += stepsOfFrame;
      if (took < FRAME[0]) stepsOfFrame = Math.min(64, 2 * stepsOfFrame);
      if (took > FRAME[1]) stepsOfFrame = Math.max(1, Math.floor(stepsOfFrame / 2));
      if (performance.now() - since > 500) {
        const rate = (1000 * steps) / (performance.now() - since);
        at("rate").textContent = `${taken.toLocaleString("en")} steps · ${rate.toPrecision(3)} steps/s each`;
        [since, steps] = [performance.now(), 0];
      }
      for (const side of sides) side.report();
      chart();
    }
  } catch (error) {
    // What a restart or a lost device takes away is no news.
    if (isCurrent()) trouble(error.message);
  }
}

const frame = () => new Promise(requestAnimationFrame);

function chart() {
  const curves = sides.map((side) => ({ losses: side.fit?.losses ?? [], color: `--${side.id}`, name: side.name }));
  drawChart(at("chart"), curves);
}

function sceneSize() {
  const width = size();
  return { width, height: Math.round(0.75 * width) };
}

/** Pixels of the longer side: fewer where a CPU plays the GPU. */
function size() {
  const asked = Number(wanted.get("size"));
  if (asked >= 16 && asked <= 1024) return Math.round(asked);
  return isSoftware(gpu.device) ? 128 : 256;
}

function isSoftware(device) {
  const info = device.adapterInfo;
  return Boolean(info?.isFallbackAdapter) || info?.architecture === "swiftshader";
}

function adapterName(device) {
  const { vendor, architecture, description } = device.adapterInfo ?? {};
  const name = description || [vendor, architecture].filter(Boolean).join(" ") || "unnamed";
  return isSoftware(device) ? `${name} (software: a CPU computes)` : name;
}

function groupsOfRecipes() {
  const groups = new Map();
  for (const name of recipes()) {
    const base = recipe(name).base.type;
    if (!groups.has(base)) groups.set(base, Object.assign(document.createElement("optgroup"), { label: base }));
    groups.get(base).append(new Option(name));
  }
  return [...groups.values()];
}

async function openPicture(file) {
  const most = size();
  try {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    const { data } = context.getImageData(0, 0, width, height);
    ownPicture = { width, height, pixels: Float32Array.from(data, (value) => value / 255) };
  } catch {
    trouble(`${file.name || "That"} is not a picture that this browser can read.`);
    return;
  }
  await restart();
}

function trouble(text, again = false) {
  at("trouble-text").textContent = text;
  at("again").hidden = !again;
  at("trouble").hidden = false;
}

function lost(device, info) {
  // Not the one before the last start.
  if (device !== gpu.device) return;
  isReady = false;
  for (const id of CONTROLS) at(id).disabled = true;
  trouble(`The GPU was lost: ${(info.message || info.reason).replace(/[.]*$/, "")}. Both fits are gone; the page can start again.`, true);
}

async function verify() {
  const button = at("verify");
  button.disabled = true;
  isChecking = true;
  at("failures").replaceChildren();
  let [cases, failed] = [0, 0];
  const verdict = at("verdict");
  try {
    const recipes = wanted.get("check")?.split(",");
    await gpu.verify({ maxSize: 70_000, recipes }, ({ recipe, shape, failure }) => {
      cases++;
      if (failure) {
        failed++;
        const item = document.createElement("li");
        item.textContent = `${recipe}, ${shape.join(" × ")}: ${failure}`;
        at("failures").append(item);
      }
      verdict.textContent = `${cases} cases, ${failed} failed`;
    });
    const all = `All ${cases} cases passed on this GPU.`;
    verdict.textContent = failed ? `${failed} of ${cases} cases failed on this GPU.` : all;
  } catch (error) {
    verdict.textContent = error.message;
  }
  button.disabled = !isReady;
  isChecking = false;
}

function setRunning(running) {
  isRunning = running;
  at("play").textContent = running ? "Pause" : "Resume";
}

for (const count of [250, 500, 1000, 2000, 4000]) at("gaussians").append(new Option(count.toLocaleString("en"), count));
const asked = Number(wanted.get("gaussians"));
const isCount = Number.isInteger(asked) && asked >= 1 && asked <= 65_535;
if (isCount && !at("gaussians").querySelector(`[value="${asked}"]`)) at("gaussians").append(new Option(asked, asked));
at("gaussians").value = isCount ? asked : 1000;

at("gaussians").addEventListener("change", () => restart());
at("play").addEventListener("click", () => setRunning(!isRunning));
at("reset").addEventListener("click", () => restart());
at("again").addEventListener("click", () => begin());
at("verify").addEventListener("click", () => verify());
at("scene").addEventListener("click", () => {
  ownPicture = null;
  restart();
});
at("file").addEventListener("change", ({ target }) => {
  if (target.files.length) openPicture(target.files[0]);
  target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file && isReady) openPicture(file);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !isReady) return;
  // Space presses the button that has the focus, and letters choose in a list.
  if (event.key === " " && !event.target.closest("button, select, input")) {
    event.preventDefault();
    setRunning(!isRunning);
  } else if ((event.key === "r" || event.key === "R") && !event.target.closest("select")) {
    restart();
  }
});
window.addEventListener("resize", () => picture && chart());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => picture && chart());

function begin() {
  return start().catch((error) => {
    at("app").setAttribute("aria-busy", "false");
    trouble(error.message ?? String(error), gpu !== undefined && !isReady);
  });
}

begin();
