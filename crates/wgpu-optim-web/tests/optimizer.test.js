// The package as a page uses it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { open } from "./browser.js";

let browser;
before(async () => {
  browser = await open();
});
after(() => browser.close());

/** Runs `body` in a page, with the module loaded as `module`. */
async function inPage(body, options = {}) {
  const page = await browser.page("/blank.html", options);
  const result = await page.evaluate(`(async () => {
    const module = await import("/package/wgpu_optim.js");
    await module.default();
    // What a promise is rejected with, or a call throws.
    const reason = async (act) => { try { await act(); } catch (error) { return String(error); } };
    return (${body})(module, reason);
  })()`);
  await browser.done(page);
  return result;
}

test("the page's own WGSL writes gradients, and nothing crosses to the host", async () => {
  const { params, steps, reads } = await inPage(async ({ GpuOptimizer }) => {
    const optimizer = await GpuOptimizer.create({
      tensors: [{ name: "w", shape: [1000] }],
      recipe: "mgup-adamw",
      lr: 0.05,
      schedule: { type: "linear", steps: 400, floor: 0 },
    });
    const { device } = optimizer;
    const module = device.createShaderModule({
      code: `
        @group(0) @binding(0) var<storage, read_write> w: array<f32>;
        @group(0) @binding(1) var<storage, read_write> grad: array<f32>;
        // Of ½ Σ (w − i / 1000)².
        @compute @workgroup_size(64)
        fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
          if id.x < 1000 { grad[id.x] = w[id.x] - f32(id.x) / 1000; }
        }`,
    });
    const pipeline = device.createComputePipeline({ layout: "auto", compute: { module } });
    const group = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [
        { binding: 0, resource: optimizer.param("w") },
        { binding: 1, resource: optimizer.grad("w") },
      ],
    });
    let reads = 0;
    const map = GPUBuffer.prototype.mapAsync;
    GPUBuffer.prototype.mapAsync = function (...range) {
      reads++;
      return map.apply(this, range);
    };
    for (let step = 0; step < 400; step++) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(Math.ceil(1000 / 64));
      pass.end();
      device.queue.submit([encoder.finish()]);
      await optimizer.step();
    }
    const before = reads;
    const params = [...(await optimizer.readParam("w"))];
    return { params, steps: optimizer.steps, reads: before };
  });
  assert.equal(reads, 0);
  assert.equal(steps, 400);
  params.forEach((w, i) => assert.ok(Math.abs(w - i / 1000) < 2e-3, `w[${i}] is ${w}`));
});

test("steps keep their place in the queue, and more than fit wait for the GPU", async () => {
  const { readings, steps, last, unawaited } = await inPage(async ({ GpuOptimizer }, reason) => {
    // Lion moves by ±lr: a step is −1 or 1, as the gradient of its moment is.
    const base = { type: "lion", lr: 1, betas: [0, 0] };
    const optimizer = await GpuOptimizer.create({ tensors: [{ name: "w", shape: [4] }], recipe: { base } });
    const readings = [];
    const gradient = (value) => optimizer.writeGrad("w", new Float32Array(4).fill(value));
    for (const value of [1, 1, -1]) {
      gradient(value);
      optimizer.step();
      readings.push(optimizer.readParam("w"));
    }
    // Far more than there is room for, without a pause for what the GPU says; each with its own gradient.
    for (let step = 0; step < 700; step++) {
      gradient(step % 2 === 0 ? 1 : -1);
      await optimizer.step();
      if (step % 2 === 0) gradient(0);
    }
    const last = (await optimizer.readParam("w"))[3];
    const { steps } = optimizer;
    // Nobody waits for these: the first that has no place waits, and the next is an error.
    const all = [];
    for (let step = 0; step < 400; step++) all.push(reason(() => optimizer.step()));
    const unawaited = (await Promise.all(all)).filter(Boolean);
    await optimizer.step();
    return { readings: (await Promise.all(readings)).map((values) => values[0]), steps, last, unawaited };
  });
  assert.deepEqual(readings, [-1, -2, -1]);
  assert.equal(steps, 703);
  assert.equal(last, -1);
  assert.ok(unawaited.length > 0 && unawaited.length < 400, `${unawaited.length} of 400 were refused`);
  for (const error of unawaited) assert.match(error, /await every step before the next/);
});

test("errors name the field, as exceptions with the message of the library", async () => {
  const errors = await inPage(async ({ Gpu, GpuOptimizer, recipe }, reason) => {
    const tensors = [{ name: "w", shape: [2, 3] }];
    const gpu = await Gpu.open();
    const create = (options) => reason(() => gpu.createOptimizer(options));
    const optimizer = await gpu.createOptimizer({ tensors, recipe: "adamw" });
    const errors = {
      unknown: await create({ tensors, recipe: "adamx" }),
      ratio: await create({ tensors, recipe: { base: { type: "adamw" }, policy: { type: "mgup", ratio: 1 } } }),
      key: await create({ tensors, recipe: { base: { type: "adamw", weightDecy: 0 } } }),
      twice: await create({ tensors, recipe: { base: { type: "adamw", weightDecay: 0, weight_decay: 0 } } }),
      option: await create({ tensors, recipe: "adamw", learningRate: 1 }),
      nan: await create({ tensors, recipe: "adamw", lr: NaN }),
      none: await create({ tensors }),
      nothing: await create(undefined),
      shape: await create({ tensors: [{ name: "w", shape: [2, -3] }], recipe: "adamw" }),
      grams: await create({ tensors, recipe: "grams-muon" }),
      size: await reason(() => optimizer.writeParam("w", new Float32Array(5))),
      name: await reason(() => optimizer.readParam("v")),
      state: await reason(() => optimizer.state("w", "momentum_buffer")),
      rates: await reason(() => optimizer.rates("w")),
      lr: await reason(() => optimizer.setLr(-1)),
      group: await reason(() => optimizer.setLr(1, 2)),
      steps: await reason(() => optimizer.setSteps(1.5)),
      guarded: await reason(() => optimizer.readGuarded()),
      preset: await reason(() => recipe("sgdx")),
      sibling: await reason(() => optimizer.sibling({ tensors, recipe: "nadamx" })),
      limit: await reason(() => Gpu.open({ requiredLimits: { maxBuffers: 1 } })),
      feature: await reason(() => Gpu.open({ requiredFeatures: ["teleport"] })),
      verify: await reason(() => gpu.verify({ recipes: "adamw" })),
      typo: await reason(() => gpu.verify({ recipes: ["adamx"] })),
      empty: await reason(() => gpu.verify({ maxSize: 0 })),
      thrown: await reason(() => gpu.verify({ recipes: ["adamw"], maxSize: 1 }, () => { throw new RangeError("mine"); })),
      function: await create({ tensors, recipe: "adamw", schedule: (step) => 1 / step }),
      fraction: await reason(() => optimizer.setLr(1, 0.7)),
      text: await reason(() => optimizer.setLr(1, "encoder")),
    };
    optimizer.dispose();
    optimizer.dispose();
    errors.disposed = await reason(() => optimizer.step());
    errors.static = await reason(() => GpuOptimizer.create({ tensors, recipe: "adamw", telemetry: 0 }));
    return errors;
  });
  const expected = {
    unknown: /unknown optimizer `adamx`; known are adamw, adamw-torch, lion/,
    ratio: /`policy.ratio` is 1, but must be/,
    key: /base.*unknown field `weight_decy`/,
    twice: /`weight_decay` is given twice/,
    option: /options.*unknown field `learningRate`/,
    nan: /options\.lr: null, NaN or infinite/,
    none: /one of `recipe` and `groups` must be given/,
    nothing: /missing field `tensors`/,
    shape: /options\.tensors\[0\]\.shape\[1\].*-3/,
    grams: /unknown optimizer `grams-muon`/,
    size: /w.*6/,
    name: /no tensor is named `v`/,
    state: /no state is named `momentum_buffer`; this optimizer keeps exp_avg, exp_avg_sq/,
    rates: /components/,
    lr: /`lr` is -1/,
    group: /group/,
    steps: /1\.5 is not a whole number/,
    guarded: /without `max_grad_norm`, `grad_scaler` and `non_finite`/,
    preset: /unknown optimizer `sgdx`/,
    sibling: /unknown optimizer `nadamx`/,
    limit: /no limit is named `maxBuffers`/,
    feature: /no feature is named `teleport`/,
    verify: /options\.recipes/,
    typo: /no recipe is verified as `adamx`/,
    empty: /no case is left/,
    thrown: /^RangeError: mine$/,
    function: /options: `schedule` is a function/,
    fraction: /group: 0\.7 is not a whole number/,
    text: /group: NaN is not a whole number/,
    disposed: /disposed/,
    static: /`telemetry` is 0/,
  };
  assert.deepEqual(Object.keys(errors).sort(), Object.keys(expected).sort());
  for (const [name, pattern] of Object.entries(expected)) assert.match(errors[name] ?? "no error", pattern, name);
});

test("errors have a code to match", async () => {
  const codes = await inPage(async ({ Gpu, GpuOptimizer, recipe }) => {
    const code = async (act) => {
      try {
        return `no error, but ${await act()}`;
      } catch (error) {
        return error instanceof Error ? error.code : `no Error, but ${error}`;
      }
    };
    const tensors = [{ name: "w", shape: [2, 3] }];
    const gpu = await Gpu.open();
    const create = (options) => code(() => gpu.createOptimizer(options));
    const optimizer = await gpu.createOptimizer({ tensors, recipe: "adamw" });
    const codes = {
      preset: await code(() => recipe("sgdx")),
      ratio: await create({ tensors, recipe: { base: { type: "adamw" }, policy: { type: "mgup", ratio: 1 } } }),
      option: await create({ tensors, recipe: "adamw", learningRate: 1 }),
      text: await create({ tensors, recipe: "adamw", schedule: () => 1 }),
      group: await code(() => optimizer.setLr(1, 2)),
      name: await code(() => optimizer.readParam("v")),
      state: await code(() => optimizer.state("w", "momentum_buffer")),
      guarded: await code(() => optimizer.readGuarded()),
      sibling: await code(() => optimizer.sibling({ tensors, recipe: "nadamx" })),
      feature: await code(() => Gpu.open({ requiredFeatures: ["teleport"] })),
    };
    optimizer.dispose();
    codes.disposed = await code(() => optimizer.step());
    return codes;
  });
  assert.deepEqual(codes, {
    preset: "unknown_preset",
    ratio: "recipe",
    option: "options",
    text: "options",
    group: "unknown_group",
    name: "unknown_tensor",
    state: "unknown_state",
    guarded: "setting_off",
    sibling: "unknown_preset",
    feature: "options",
    disposed: "disposed",
  });
});

test("what the page's shaders need of the device is there", async () => {
  const { has, limit } = await inPage(async ({ Gpu }) => {
    const adapter = await navigator.gpu.requestAdapter();
    const [feature] = ["timestamp-query", "float32-filterable", "depth-clip-control"].filter((name) => adapter.features.has(name));
    const gpu = await Gpu.open({ requiredFeatures: [feature], requiredLimits: { maxBindGroups: 4 } });
    return { has: gpu.device.features.has(feature), limit: gpu.device.limits.maxBindGroups };
  });
  assert.equal(has, true);
  assert.equal(limit, 4);
});

test("recipes are objects in camelCase, or as in recipe files", async () => {
  const { mgup, params, names } = await inPage(async ({ Gpu, recipe, recipes }) => {
    const gpu = await Gpu.open();
    const mgup = recipe("mgup-adamw");
    const written = [
      "cautious-adamw",
      { base: { type: "adamw", weightDecay: 0.1 }, policy: { type: "cautious" } },
      { base: { type: "adamw", weight_decay: 0.1 }, policy: { type: "cautious" } },
      { ...recipe("cautious-adamw"), base: { ...recipe("cautious-adamw").base, weightDecay: 0.1 } },
    ];
    const params = [];
    for (const recipe of written) {
      const optimizer = await gpu.createOptimizer({ tensors: [{ name: "w", shape: [3] }], recipe, lr: 0.1 });
      optimizer.writeParam("w", new Float32Array([1, 2, 3]));
      optimizer.writeGrad("w", new Float32Array([0.5, -0.5, 0.25]));
      for (let step = 0; step < 3; step++) await optimizer.step();
      params.push([...(await optimizer.readParam("w"))]);
    }
    return { mgup, params, names: recipes() };
  });
  assert.equal(mgup.policy.ratio, 0.5);
  assert.equal(mgup.base.weightDecay, 0);
  assert.ok(names.includes("mgup-muon"));
  assert.notDeepEqual(params[0], params[1]);
  assert.deepEqual(params[1], params[2]);
  assert.deepEqual(params[1], params[3]);
});

const OWN_LION = `
//@ base own_lion
//@ lr 1e-4
//@ state exp_avg
//@ decay beta_one = 0.9
//@ decay beta_two = 0.99
//@ signs
fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let interpolated = s.beta_one * old.exp_avg + s.one_minus_beta_one * g;
    return Update(interpolated, State(s.beta_two * old.exp_avg + s.one_minus_beta_two * g));
}`;
const OWN_GRAMS = `
//@ policy own_grams
fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> { return sign(score); }`;

test("a page brings an optimizer along as WGSL", async () => {
  const { own, builtIn, held, scheduled } = await inPage(
    `async ({ Gpu }) => {
    const gpu = await Gpu.open();
    const run = async (recipe, rest = {}) => {
      const optimizer = await gpu.createOptimizer({ tensors: [{ name: "w", shape: [5001] }], recipe, lr: 0.1, ...rest });
      for (let step = 0; step < 3; step++) {
        optimizer.writeGrad("w", Float32Array.from({ length: 5001 }, (_, i) => Math.sin(i + step)));
        await optimizer.step();
      }
      return { w: [...(await optimizer.readParam("w"))], recipe: optimizer.recipe?.() };
    };
    const base = { type: "custom", wgsl: ${JSON.stringify(OWN_LION)}, scalars: { beta_one: 0.95 } };
    const policy = { type: "custom", wgsl: ${JSON.stringify(OWN_GRAMS)} };
    const lion = { type: "lion", betas: [0.95, 0.99] };
    const own = [await run({ base, policy: { type: "mgup" } }), await run({ base, policy })];
    const builtIn = [await run({ base: lion, policy: { type: "mgup" } }), await run({ base: lion, policy: { type: "grams" } })];
    const held = await run({ base });
    const scheduled = await run({ base }, { scalarSchedules: { beta_one: { type: "step", every: 1, factor: 0.1 } } });
    return { own, builtIn, held, scheduled };
  }`,
  );
  own.forEach(({ w }, i) => assert.deepEqual(w, builtIn[i].w));
  assert.notDeepEqual(held.w, scheduled.w);
});

test("the browser's compiler checks a page's text", async () => {
  const errors = await inPage(
    `async ({ Gpu }) => {
    const gpu = await Gpu.open();
    const base = ${JSON.stringify(OWN_LION)};
    const create = async (wgsl) => {
      try {
        const recipe = { base: { type: "custom", wgsl } };
        return String(await gpu.createOptimizer({ tensors: [{ name: "w", shape: [3] }], recipe }));
      } catch (error) {
        return [error.code, error.message];
      }
    };
    const inside = (line) => base.replace("return Update", line + "\\n    return Update");
    return [
      await create(inside("workgroupBarrier();")),
      await create(inside("let é = 1.0;")),
      await create(inside("let x = 1.0 +;")),
      await create(inside("let x = /* é */ tensors.skip;")),
      await create(inside("let x: u32 = 1.0;")),
      await create(inside("let x = old.v;")),
      await create(base.replace("return Update(interpolated,", "return Update(")),
      await create(base.replace("-> Update", "-> State")),
    ];
  }`,
  );
  const places = [
    /^custom base `own_lion`, line 10, column 5: the function `workgroupBarrier` is not available/,
    /line 10, column 9: `\\u\{e9\}` is only allowed in comments/,
    /^custom base `own_lion`, line 10, column \d+: .*/,
    /^custom base `own_lion`, line 10, column 21: .*tensors/,
    /^custom base `own_lion`, line 10, column \d+: .*/,
    /^custom base `own_lion`, line 10, column \d+: .*\bv\b/,
    /^custom base `own_lion`, line 10, column \d+: .*/,
    /^custom base `own_lion`, line 8, column 1: `update` must be/,
  ];
  errors.forEach(([code, message], i) => {
    assert.equal(code, "custom", message);
    assert.match(message, places[i]);
  });
});

test("groups, schedules, guards, components and telemetry", async () => {
  const found = await inPage(async ({ Gpu }) => {
    const gpu = await Gpu.open({ powerPreference: "low-power", requiredLimits: { maxStorageBuffersPerShaderStage: 8 } });
    const optimizer = await gpu.createOptimizer({
      tensors: [
        { name: "a", shape: [8, 2], components: 2 },
        { name: "b", shape: [6000], group: 1 },
      ],
      groups: [
        { recipe: "lion", lr: 1, schedule: { type: "step", every: 1, factor: 0.5 } },
        { recipe: "mgup-adamw", lr: 0.01 },
      ],
      maxGradNorm: 1,
      nonFinite: "skip",
      telemetry: 2,
    });
    optimizer.writeRates("a", new Float32Array([1, 3]));
    optimizer.writeGrad("a", new Float32Array(16).fill(3));
    optimizer.writeGrad("b", Float32Array.from({ length: 6000 }, (_, i) => Math.sin(i) / 100));
    await optimizer.step();
    const lrs = [optimizer.lr(), optimizer.lr(1)];
    const selected = await optimizer.readSelected("b");
    await optimizer.step();
    const a = [...(await optimizer.readParam("a"))].slice(0, 2);
    const guarded = await optimizer.readGuarded();
    optimizer.writeGrad("a", new Float32Array(16).fill(NaN));
    await optimizer.step();
    const skipped = await optimizer.readGuarded();
    const telemetry = [optimizer.takeTelemetry(), optimizer.takeTelemetry(), optimizer.takeTelemetry()];
    const states = optimizer.stateNames("b");
    const state = (await optimizer.readState("b", states[0])).length;
    optimizer.writeState("b", states[0], new Float32Array(6000).fill(2));
    const written = (await optimizer.readState("b", "exp_avg"))[5999];
    optimizer.setSteps(10);
    optimizer.zeroGrad();
    const { cost } = optimizer;
    const slices = [optimizer.rates("a"), optimizer.state("b", "exp_avg"), optimizer.lossScale()].map(({ size }) => size);
    return { slices, lrs, selected, a, guarded, skipped, telemetry, states, state, written, steps: optimizer.steps, cost };
  });
  assert.deepEqual(found.lrs, [0.5, 0.01]);
  assert.deepEqual(found.slices, [8, 24_000, 4]);
  assert.equal(found.selected.k, 3000);
  assert.equal(found.selected.count, 3000);
  assert.deepEqual(found.a, [-1.5, -4.5]);
  assert.ok(Math.abs(found.guarded.gradNorm - Math.hypot(12, Math.sqrt(6000 / 2) / 100)) < 1e-2, `${found.guarded.gradNorm}`);
  assert.deepEqual([found.guarded.skipped, found.skipped.skipped, found.skipped.skippedSteps], [false, true, 1]);
  assert.deepEqual(found.telemetry.map((observed) => observed?.step), [1, 3, undefined]);
  assert.deepEqual(found.telemetry[0].tensors.map(({ name }) => name), ["a", "b"]);
  assert.equal(found.telemetry[0].tensors[1].selected, 3000);
  assert.equal(found.telemetry[1].tensors[0].nonFinite, 16);
  assert.deepEqual(found.states, ["exp_avg", "exp_avg_sq"]);
  assert.equal(found.state, 6000);
  assert.equal(found.written, 2);
  assert.equal(found.steps, 10);
  assert.ok(found.cost.dispatches > 3 && found.cost.memory > 4 * 4 * 6016 && found.cost.traffic > 28 * 6016);
});

test("a schedule-free recipe is evaluated at averages, and trains on", async () => {
  const found = await inPage(async ({ GpuOptimizer }) => {
    const optimizer = await GpuOptimizer.create({
      tensors: [{ name: "w", shape: [4] }],
      recipe: { base: { type: "schedule_free_sgd", lr: 0.1, momentum: 0.5 } },
    });
    optimizer.writeParam("w", new Float32Array(4).fill(1));
    optimizer.writeGrad("w", new Float32Array(4).fill(1));
    await optimizer.step();
    await optimizer.step();
    const read = async () => (await optimizer.readParam("w"))[0];
    const values = [await read()];
    optimizer.evaluate();
    values.push(await read());
    const code = await optimizer.step().catch((error) => error.code);
    optimizer.train();
    values.push(await read());
    await optimizer.step();
    return { values, code, steps: optimizer.steps };
  });
  assert.equal(found.code, "evaluating");
  assert.equal(found.steps, 3);
  // z is 0.9, then 0.8; the average 0.9, then 0.85; the parameter lies between the two.
  [0.825, 0.85, 0.825].forEach((expected, i) => assert.ok(Math.abs(found.values[i] - expected) < 1e-6, `${found.values}`));
});

test("any recipe is evaluated at averages over its steps, bf16 needs no masters, and states may be bytes", async () => {
  const found = await inPage(async ({ GpuOptimizer }) => {
    const run = async (options) => {
      const optimizer = await GpuOptimizer.create({
        tensors: [{ name: "w", shape: [64] }],
        recipe: { base: { type: "sgd", lr: 1 / 1024 } },
        ...options,
      });
      optimizer.writeParam("w", new Float32Array(64).fill(1.5));
      optimizer.writeGrad("w", new Float32Array(64).fill(-1));
      for (let step = 0; step < 3; step++) await optimizer.step();
      const read = async () => Array.from(await optimizer.readParam("w"));
      const values = [await read()];
      optimizer.evaluate();
      values.push(await read());
      optimizer.train();
      values.push(await read());
      return values;
    };
    return {
      mean: await run({ average: { mean: true, start: 1 } }),
      nearest: await run({ precision: "bf16", rounding: "nearest" }),
      stochastic: await run({ precision: "bf16", rounding: { stochastic: { seed: 3 } } }),
      bytes: await run({ recipe: { base: { type: "adamw", lr: 1 / 1024 }, state: "8bit" } }),
    };
  });
  const [before, mean, after] = found.mean.map((values) => values[0]);
  assert.deepEqual([before, mean, after], [1.5 + 3 / 1024, 1.5 + 2.5 / 1024, 1.5 + 3 / 1024]);
  assert.ok(found.nearest[0].every((value) => value === 1.5), "steps of an eighth of the distance of two values are lost");
  const moved = found.stochastic[0].filter((value) => value > 1.5).length;
  assert.ok(moved > 5 && moved < 50, `${moved} of 64 have moved, about 21 are expected`);
  // A step of AdamW is the learning rate here, as far as the rounded moments are exact.
  const steps = found.bytes[0].map((value) => 1024 * (value - 1.5));
  assert.ok(steps.every((step) => step > 2 && step < 4) && new Set(steps).size > 8, `three steps each: ${steps}`);
});

test("recipes change between steps, and micro-batches have weights", async () => {
  const found = await inPage(async ({ GpuOptimizer, recipe }) => {
    const optimizer = await GpuOptimizer.create({
      tensors: [
        { name: "a", shape: [4] },
        { name: "b", shape: [2, 3], group: 1 },
      ],
      groups: [{ recipe: "lion", lr: 1 }, { recipe: "lion", lr: 1 }],
      accumulation: 2,
    });
    const { tensors } = optimizer;
    const thrown = (act) => {
      try {
        act();
      } catch (error) {
        return error.code;
      }
    };
    const codes = [
      thrown(() => optimizer.setRecipe("adamw")),
      thrown(() => optimizer.setRecipe("lion", 2)),
      thrown(() => optimizer.setRecipe({ base: { type: "lion", weightDecay: -1 } })),
      thrown(() => optimizer.setRecipe("lions")),
      thrown(() => optimizer.setRecipe(undefined)),
      thrown(() => optimizer.setMicroBatchWeight(0)),
    ];
    const lion = recipe("lion");
    optimizer.setRecipe({ ...lion, base: { ...lion.base, lr: 0.25 } }, 1);
    // The heavier micro-batch decides the sign.
    for (const [weight, value] of [[3, 1], [1, -2]]) {
      optimizer.setMicroBatchWeight(weight);
      optimizer.writeGrad("a", new Float32Array(4).fill(value));
      optimizer.writeGrad("b", new Float32Array(6).fill(value));
      await optimizer.step();
    }
    const params = await Promise.all(["a", "b"].map(async (name) => (await optimizer.readParam(name))[0]));
    return { tensors, codes, params };
  });
  assert.deepEqual(found.tensors, [
    { name: "a", shape: [4], group: 0 },
    { name: "b", shape: [2, 3], group: 1 },
  ]);
  assert.deepEqual(found.codes, ["group", "unknown_group", "recipe", "unknown_preset", "options", "recipe"]);
  assert.deepEqual(found.params, [-1, -0.25]);
});

/** Counts the buffers of the page that are alive, and the bind groups and pipelines that were made. */
const count = () => {
  window.counts = { buffers: 0, bindGroups: 0, pipelines: 0 };
  const wrap = (type, name, then) => {
    const inner = type.prototype[name];
    type.prototype[name] = function (...given) {
      const result = inner.apply(this, given);
      then(this, result);
      return result;
    };
  };
  const alive = new WeakSet();
  wrap(GPUDevice, "createBuffer", (_, buffer) => {
    alive.add(buffer);
    counts.buffers++;
  });
  wrap(GPUBuffer, "destroy", (buffer) => {
    if (alive.delete(buffer)) counts.buffers--;
  });
  wrap(GPUDevice, "createBindGroup", () => counts.bindGroups++);
  wrap(GPUDevice, "createComputePipeline", () => counts.pipelines++);
};

test("5,000 steps leave nothing behind", { timeout: 300_000 }, async () => {
  const { made, rounds, after, steps } = await inPage(
    async (module) => {
      const gpu = await module.Gpu.open();
      const options = { tensors: [{ name: "w", shape: [20, 60] }], recipe: "mgup-adamw", telemetry: 7, maxGradNorm: 1 };
      const optimizer = await gpu.createOptimizer(options);
      const made = counts.buffers;
      optimizer.writeGrad("w", Float32Array.from({ length: 1200 }, (_, i) => Math.cos(i)));
      const run = async (steps) => {
        for (let step = 0; step < steps; step++) {
          await optimizer.step();
          if (step % 50 === 0) {
            await optimizer.readParam("w");
            while (optimizer.takeTelemetry());
          }
        }
        await optimizer.readParam("w");
        // Telemetry arrives after the steps do.
        await new Promise((wait) => setTimeout(wait, 200));
        while (optimizer.takeTelemetry());
        for (let i = 0; i < 3; i++) {
          gc();
          await new Promise((wait) => setTimeout(wait, 50));
        }
        const { memory } = await module.default();
        return { ...counts, heap: performance.memory.usedJSHeapSize, wasm: memory.buffer.byteLength };
      };
      // By then the browser has compiled what it will.
      const rounds = [await run(3500)];
      // Less than a number a step. The browser may have compiled something all the same, but not each time.
      const isLarger = ([before, after]) => after.wasm > before.wasm || after.heap - before.heap >= 5000 * 8;
      do rounds.push(await run(5000));
      while (rounds.length < 4 && isLarger(rounds.slice(-2)));
      const { steps } = optimizer;
      optimizer.dispose();
      return { made, rounds, after: counts.buffers, steps };
    },
    { before: count },
  );
  const [{ heap: heapBefore, ...before }, { heap, ...then }] = rounds.slice(-2);
  assert.equal(steps, 3500 + 5000 * (rounds.length - 1));
  assert.ok(made > 5, `an optimizer has ${made} buffers`);
  assert.equal(before.buffers, made);
  assert.deepEqual(then, before, "buffers, bind groups, pipelines, and bytes of the module");
  assert.ok(heap - heapBefore < 5000 * 8, `the heap grew by ${heap - heapBefore} bytes`);
  assert.equal(after, 0);
  console.log(`${made} buffers before and after 5,000 steps, 0 after dispose; heap ${heap - heapBefore} bytes`);
});

test("siblings share pipelines, and what is disposed of gives its memory back", async () => {
  const { first, second, left, forgotten } = await inPage(
    async ({ Gpu }) => {
      const gpu = await Gpu.open();
      const options = { tensors: [{ name: "w", shape: [5000] }], recipe: "mgup-adamw" };
      const optimizer = await gpu.createOptimizer(options);
      const first = { ...counts };
      const making = optimizer.sibling(options);
      // It may go on while the other is made.
      await optimizer.step();
      const sibling = await making;
      const second = { ...counts };
      optimizer.dispose();
      await sibling.step();
      sibling[Symbol.dispose]();
      const left = counts.buffers;
      await gpu.verify({ recipes: ["adamw"], maxSize: 300 });
      return { first, second, left, forgotten: counts.buffers };
    },
    { before: count },
  );
  assert.equal(second.pipelines, first.pipelines);
  assert.equal(second.buffers, 2 * first.buffers);
  assert.equal(left, 0);
  assert.equal(forgotten, 0);
});

test("a lost device is an error, not silence", async () => {
  const found = await inPage(async ({ Gpu }, reason) => {
    const gpu = await Gpu.open();
    const optimizer = await gpu.createOptimizer({ tensors: [{ name: "w", shape: [4] }], recipe: "adamw" });
    const before = gpu.lost ?? null;
    optimizer.device.destroy();
    await gpu.device.lost;
    const errors = [];
    for (const act of [
      () => optimizer.step(),
      () => optimizer.readParam("w"),
      () => optimizer.writeGrad("w", new Float32Array(4)),
      () => gpu.createOptimizer({ tensors: [{ name: "w", shape: [4] }], recipe: "adamw" }),
      () => optimizer.sibling({ tensors: [{ name: "w", shape: [4] }], recipe: "adamw" }),
      () => gpu.verify(),
    ]) {
      errors.push((await reason(act)) ?? "no error");
    }
    optimizer.dispose();
    return { before, lost: gpu.lost, errors };
  });
  assert.equal(found.before, null);
  assert.match(found.lost, /destroyed/);
  for (const error of found.errors) assert.match(error, /the GPU was lost: it was destroyed/);
});

test("a read that a lost device cuts off is an error", async () => {
  const error = await inPage(async ({ GpuOptimizer }, reason) => {
    const optimizer = await GpuOptimizer.create({ tensors: [{ name: "w", shape: [4] }], recipe: "adamw" });
    const read = optimizer.readParam("w");
    optimizer.device.destroy();
    return (await reason(() => read)) ?? "no error";
  });
  assert.match(error, /reading `w` back failed/);
});

test("where WebGPU is missing, the error says what to do", async () => {
  const missing = await inPage(async ({ Gpu }, reason) => reason(() => Gpu.open()), {
    before: () => Object.defineProperty(navigator, "gpu", { value: undefined }),
  });
  assert.match(missing, /no WebGPU.*use a current Chrome/);
  const none = await inPage(async ({ Gpu }, reason) => reason(() => Gpu.open()), {
    before: () => {
      GPU.prototype.requestAdapter = async () => null;
    },
  });
  assert.match(none, /found no GPU/);
});
