// The pipeline: a picture on the GPU, and Gaussians that an optimizer fits to it.
//
// shaders/fit.wgsl says what is computed. A step is five dispatches of the page's own, which end with gradients in the
// optimizer's buffers, and then the optimizer's.

// A side of the tiles that `render` works on, and invocations of other workgroups; `TILE` and `LANES` in the shader.
const TILE = 16;
const LANES = 32;
// Bytes of a `Gaussian` of the shader.
const GAUSSIAN = 48;
// Losses that the GPU keeps until they are read.
const HISTORY = 4096;

const text = async (name) => {
  const response = await fetch(new URL(`shaders/${name}`, import.meta.url));
  if (!response.ok) throw new Error(`shaders/${name}: ${response.status} ${response.statusText}`);
  return response.text();
};

/** The pipelines on a device: compiled once. */
export class Pipelines {
  static async compile(device) {
    const names = ["fit.wgsl", "scene.wgsl", "show.wgsl"];
    const [picture, ...texts] = await Promise.all(["picture.wgsl", ...names].map(text));
    const [fit, scene, show] = texts.map((code, i) => device.createShaderModule({ label: names[i], code: picture + code }));
    const compute = (module, entryPoint) =>
      device.createComputePipelineAsync({ label: entryPoint, layout: "auto", compute: { module, entryPoint } });
    const format = navigator.gpu.getPreferredCanvasFormat();
    const render = (entryPoint) =>
      device.createRenderPipelineAsync({
        label: entryPoint,
        layout: "auto",
        vertex: { module: show, entryPoint: "corner" },
        fragment: { module: show, entryPoint, targets: [{ format }] },
      });
    const stages = ["project", "list", "render", "sum_loss", "gradient"];
    const made = new Pipelines();
    [made.draw, made.begin, made.fitted, made.wanted, ...made.stages] = await Promise.all([
      compute(scene, "draw"),
      compute(fit, "begin"),
      render("fitted"),
      render("wanted"),
      ...stages.map((entryPoint) => compute(fit, entryPoint)),
    ]);
    return Object.assign(made, { device, format });
  }
}

/** A picture to fit. */
export class Picture {
  /** Without pixels, four floats each, the example's own scene. */
  constructor(pipelines, { width, height, gaussians, seed = 1, pixels }) {
    const { device } = pipelines;
    Object.assign(this, { pipelines, device, width, height, gaussians });
    this.config = this.buffer("config", 16, GPUBufferUsage.UNIFORM);
    this.target = this.buffer("target", 16 * width * height, GPUBufferUsage.STORAGE);
    device.queue.writeBuffer(this.config, 0, new Uint32Array([width, height, gaussians, seed]));
    if (pixels) {
      device.queue.writeBuffer(this.target, 0, pixels);
    } else {
      const group = this.bind(pipelines.draw, [this.config, this.target], [0, 1]);
      this.submit(pipelines.draw, group, [Math.ceil(width / TILE), Math.ceil(height / TILE)]);
    }
  }

  buffer(label, size, usage) {
    return this.device.createBuffer({ label, size, usage: usage | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  }

  /** A group of the bindings that a pipeline uses; `all` holds buffers, and slices of them. */
  bind(pipeline, all, used) {
    const entries = used.map((binding) => ({
      binding,
      resource: all[binding] instanceof GPUBuffer ? { buffer: all[binding] } : all[binding],
    }));
    return this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  }

  submit(pipeline, group, [x, y]) {
    const encoder = this.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }

  /** Draws it to a canvas. */
  show(context) {
    this.onCanvas ??= this.bind(this.pipelines.wanted, [this.config, this.target], [0, 1]);
    this.draw(context, this.pipelines.wanted, this.onCanvas);
  }

  draw(context, pipeline, group) {
    const encoder = this.device.createCommandEncoder();
    const view = context.getCurrentTexture().createView();
    const pass = encoder.beginRenderPass({ colorAttachments: [{ view, loadOp: "clear", storeOp: "store" }] });
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.draw(3);
    pass.end();
    this.device.queue.submit([encoder.finish()]);
  }

  destroy() {
    this.config.destroy();
    this.target.destroy();
  }
}

/** What an optimizer of a fit is made with. */
export function tensors(gaussians) {
  return [
    { name: "position", shape: [gaussians, 2] },
    { name: "shape", shape: [gaussians, 3] },
    { name: "color", shape: [gaussians, 3] },
  ];
}

/** A fit in progress. It owns its optimizer. */
export class Fit {
  constructor(picture, optimizer) {
    const { pipelines, gaussians } = picture;
    Object.assign(this, { picture, optimizer, losses: [] });
    const tiles = [Math.ceil(picture.width / TILE), Math.ceil(picture.height / TILE)];
    const own = {
      errors: 16 * picture.width * picture.height,
      gaussians: GAUSSIAN * gaussians,
      lists: 4 * tiles[0] * tiles[1] * (1 + gaussians),
      history: 4 * (1 + HISTORY),
    };
    const most = picture.device.limits.maxStorageBufferBindingSize;
    if (own.lists > most) throw new Error("this many Gaussians and pixels need a larger buffer than this GPU has: choose fewer");
    this.buffers = Object.entries(own).map(([name, size]) => picture.buffer(name, size, GPUBufferUsage.STORAGE));
    const [errors, projected, lists, history] = this.buffers;
    this.history = history;
    this.staging = picture.device.createBuffer({
      label: "losses",
      size: history.size,
      usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
    });
    // By binding.
    const all = [
      picture.config,
      picture.target,
      errors,
      ...["position", "shape", "color"].map((name) => optimizer.param(name)),
      ...["position", "shape", "color"].map((name) => optimizer.grad(name)),
      projected,
      lists,
      history,
    ];
    const lanes = [Math.ceil(gaussians / LANES), 1];
    picture.submit(pipelines.begin, picture.bind(pipelines.begin, all, [0, 1, 3, 4, 5, 11]), lanes);
    const uses = [
      [[0, 3, 4, 5, 9], lanes],
      [[0, 9, 10], tiles],
      [[0, 1, 2, 9, 10], tiles],
      [[0, 2, 11], [1, 1]],
      [[0, 2, 6, 7, 8, 9], [gaussians, 1]],
    ];
    this.stages = uses.map(([used, workgroups], i) => {
      const pipeline = pipelines.stages[i];
      return { pipeline, group: picture.bind(pipeline, all, used), workgroups };
    });
    this.onCanvas = picture.bind(pipelines.fitted, [picture.config, picture.target, errors], [0, 1, 2]);
  }

  run(stages) {
    const encoder = this.picture.device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, workgroups } of stages) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
    this.picture.device.queue.submit([encoder.finish()]);
  }

  /** Renders without a step. */
  render() {
    this.run(this.stages.slice(0, 3));
  }

  /** Renders, differentiates, and takes a step. */
  step() {
    this.run(this.stages);
    return this.optimizer.step();
  }

  /** Draws what it is at. */
  show(context) {
    this.picture.draw(context, this.picture.pipelines.fitted, this.onCanvas);
  }

  /** Fetches the losses of the steps since the last time into `losses`, the n-th step's at n. Must be called at least once in 4,096 steps. */
  async fetchLosses() {
    const { device } = this.picture;
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(this.history, 0, this.staging, 0, this.history.size);
    device.queue.submit([encoder.finish()]);
    await this.staging.mapAsync(GPUMapMode.READ);
    const words = this.staging.getMappedRange();
    const [steps] = new Uint32Array(words, 0, 1);
    const losses = new Float32Array(words, 4);
    while (this.losses.length < steps) this.losses.push(losses[this.losses.length % HISTORY]);
    this.staging.unmap();
  }

  destroy() {
    this.optimizer.dispose();
    this.staging.destroy();
    for (const buffer of this.buffers) buffer.destroy();
  }
}
