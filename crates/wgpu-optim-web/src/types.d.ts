/** What makes a `Gpu`. */
export interface GpuOptions {
  /** Of several GPUs, which. Default the browser's choice. */
  powerPreference?: "low-power" | "high-performance";
  /** Features that the page's own shaders need. */
  requiredFeatures?: GPUFeatureName[];
  /** Limits that the page's own shaders need, where WebGPU's defaults do not suffice. */
  requiredLimits?: Record<string, number>;
}

/** What makes a `GpuOptimizer`: tensors, and a `recipe` for all or `groups`. */
export interface OptimizerOptions extends Settings {
  tensors: TensorSpec[];
  /** A name, as in `recipes()`, or an object. */
  recipe?: string | Recipe;
  /** Learning rate, ≥ 0, in place of the recipe's; a fallback's changes in proportion. */
  lr?: number;
  /** Parameter groups, in place of `recipe` and `lr`; a tensor names its own by index. */
  groups?: { recipe: string | Recipe; lr?: number; schedule?: LrSchedule }[];
}

/** What holds for all groups. What is left out is off, and costs nothing. */
export interface Settings {
  /** A factor of the learning rate for every step; a group's own goes first. */
  schedule?: LrSchedule;
  /** Clips the norm of all gradients of a step. */
  maxGradNorm?: number;
  /** Limits every gradient to ± this. */
  maxGradValue?: number;
  /** What a step does when a gradient is infinite or NaN. Default "propagate", or "skip" with a `gradScaler`. */
  nonFinite?: "propagate" | "skip" | "error";
  /** Finds a scale for the loss: multiply it by `lossScale()`, on the GPU. Defaults 65,536, 2, 0.5, 2,000. */
  gradScaler?: { init?: number; growth?: number; backoff?: number; interval?: number };
  /** Micro-batches of a step, whose mean gradient it takes: 1 to 65,536. Default 1. */
  accumulation?: number;
  /** What parameters and gradients are stored as in their buffers. Default "f32". */
  precision?: "f32" | "f16" | "bf16";
  /** Observes the first of every so many steps, for `takeTelemetry()`. */
  telemetry?: number;
}

/** A tensor of parameters, zero at first. */
export interface TensorSpec {
  /** Unique. */
  name: string;
  /** Sizes of its dimensions; empty for a scalar. */
  shape: number[];
  /** Index of its parameter group. Default 0. */
  group?: number;
  /** What Muon and AdaGO see in it: a matrix of (out, in), which is the default, of (in, out), of (first, all others), or none. */
  layout?: "out_in" | "in_out" | "flattened" | "fallback";
  /** Components with a factor of the learning rate each: coordinate i has the factor i modulo this. See `writeRates`. */
  components?: number;
}

/** A base times an update policy. What is left out has its default, as `recipe(name)` shows. */
export interface Recipe {
  base: AdamW | Lion | Muon | AdaGo;
  /** Default plain. */
  policy?: Policy;
}

export interface AdamW {
  type: "adamw";
  lr?: number;
  betas?: [number, number];
  eps?: number;
  weightDecay?: number;
  epsPlacement?: "before_bias_correction" | "after_bias_correction";
  decayRate?: "bias_corrected" | "base";
  secondMoment?: "coordinate" | "row";
}

export interface Lion {
  type: "lion";
  lr?: number;
  betas?: [number, number];
  weightDecay?: number;
}

export interface Muon {
  type: "muon";
  lr?: number;
  momentum?: number;
  nesterov?: boolean;
  nsSteps?: number;
  nsCoefficients?: [number, number, number];
  scale?: "original" | "match_rms_adamw" | "none";
  weightDecay?: number;
  /** Steps tensors that are not matrices. */
  fallback?: AdamW;
}

export interface AdaGo {
  type: "adago";
  lr?: number;
  momentum?: number;
  clip?: number;
  minStep?: number;
  accumulatorInit?: number;
  nsSteps?: number;
  nsCoefficients?: [number, number, number];
  weightDecay?: number;
  /** Steps tensors that are not matrices. */
  fallback?: AdamW;
}

export type Policy =
  | { type: "plain" }
  | { type: "cautious"; normalizer?: "mean" | "count" }
  | { type: "mgup"; ratio?: number; alpha?: number; gamma?: number; selection?: "exact" | "approximate" }
  | { type: "cautious_mgup"; ratio?: number; alpha?: number; gamma?: number }
  | { type: "grams" };

/** A linear warm-up, then a shape; steps are counted from 0, the warm-up's included. */
export type LrSchedule = { warmup?: number } & (
  | { type: "constant" }
  | { type: "cosine"; steps: number; floor: number }
  | { type: "linear"; steps: number; floor: number }
  | { type: "step"; every: number; factor: number }
  | { type: "stable"; steps: number; decay: number; floor: number }
);

/** Bytes of a buffer: a resource for `createBindGroup`, except AdaGO's `accumulator`. */
export interface TensorSlice {
  buffer: GPUBuffer;
  offset: number;
  size: number;
}

/** What selection did to a tensor in a step. */
export interface Selected {
  /** ⌊τ d⌋ under mgup, 0 under other policies. */
  k: number;
  /** Coordinates that were selected (mgup) or had a positive score (cautious); 0 under other policies. */
  count: number;
  /** Coordinates that had to be ranked: exact mgup on more than 4,096. */
  candidates: number;
  /** Whether full histograms had to find the K-th largest. */
  missed: boolean;
}

/** What the guard of a step found. */
export interface Guarded {
  /** Norm of all gradients, before it was clipped. */
  gradNorm: number;
  /** What the next loss is to be multiplied by. */
  lossScale: number;
  skipped: boolean;
  skippedSteps: number;
}

/** What an observed step did. */
export interface Telemetry {
  /** From 1. */
  step: number;
  guarded?: Guarded;
  tensors: {
    name: string;
    numel: number;
    k: number;
    selected: number;
    /** A score that separates what mgup selected from the rest. */
    threshold?: number;
    candidates: number;
    missed: boolean;
    /** Share of the coordinates whose direction and gradient agree. */
    alignment: number;
    gradNorm: number;
    updateNorm: number;
    /** Gradients that are infinite or NaN. */
    nonFinite: number;
  }[];
}

/** What an optimizer costs. Tables, a few hundred bytes for each tensor, are left out. */
export interface Cost {
  /** Bytes of the buffers that it keeps. */
  memory: number;
  /** Bytes that a step reads and writes. */
  traffic: number;
  /** Dispatches of a step. */
  dispatches: number;
}

/** What calls throw and promises reject with. */
export interface OptimizerError extends Error {
  /**
   * A stable word for the kind of the error: a code of the Rust library (`unknown_tensor`, `recipe`, `out_of_memory`, …), or `options`,
   * `no_webgpu`, `no_adapter`, `no_device`, `device_lost`, `not_awaited` or `disposed`.
   */
  code: string;
}

/** Which cases `verify` runs. Default all. */
export interface VerifyOptions {
  /** Names, as in the verdicts. */
  recipes?: string[];
  /** Coordinates of the largest tensor. */
  maxSize?: number;
}

/** How a recipe compares with the CPU reference on a tensor. */
export interface Verdict {
  recipe: string;
  shape: number[];
  /** Largest absolute difference. */
  maxError: number;
  /** Coordinates whose side of a threshold rounding decides; they are left out. */
  uncertain: number;
  /** Why it does not hold, if it does not. */
  failure?: string;
}
