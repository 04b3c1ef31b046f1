/** Options of `Gpu.open`. */
export interface GpuOptions {
  /** Which of several GPUs to open. Default: the browser's choice. */
  powerPreference?: "low-power" | "high-performance";
  /** Features that your own shaders need. Default: none. */
  requiredFeatures?: GPUFeatureName[];
  /** Limits that your own shaders need above WebGPU's defaults. */
  requiredLimits?: Record<string, number>;
}

/** Options of a `GpuOptimizer`: tensors, and either one `recipe` for all of them or `groups`. */
export interface OptimizerOptions extends Settings {
  tensors: TensorSpec[];
  /** A name from `recipes()`, or an object. */
  recipe?: string | Recipe;
  /** Learning rate, ≥ 0, in place of the recipe's; a fallback's changes in proportion. */
  lr?: number;
  /** Parameter groups, in place of `recipe` and `lr`. Each tensor names its group by index. */
  groups?: { recipe: string | Recipe; lr?: number; schedule?: LrSchedule; scalarSchedules?: Record<string, LrSchedule> }[];
  /** Schedules of hyper-parameters of the recipe's custom base or policy, by name. The factor multiplies the hyper-parameter. */
  scalarSchedules?: Record<string, LrSchedule>;
}

/** Settings of all groups. Omitted settings are off and cost nothing. */
export interface Settings {
  /** A factor of the learning rate for every step. A group's own schedule takes its place. */
  schedule?: LrSchedule;
  /** Clips the norm of all gradients of a step to this, > 0. */
  maxGradNorm?: number;
  /** Limits every gradient to ± this, > 0. */
  maxGradValue?: number;
  /**
   * What a step does when a gradient is infinite or NaN: "propagate" steps with it, "skip" changes nothing, "error" also fails the next
   * `readGuarded()` or `takeTelemetry()`. Default "propagate", or "skip" with a `gradScaler`.
   */
  nonFinite?: "propagate" | "skip" | "error";
  /**
   * Finds a scale for the loss. Multiply the loss by `lossScale()` on the GPU. The scale starts at `init` (65,536), is multiplied by
   * `growth` (2) after `interval` (2,000) steps without overflow, and by `backoff` (0.5) after an overflow.
   */
  gradScaler?: { init?: number; growth?: number; backoff?: number; interval?: number };
  /** Micro-batches per step, 1 to 65,536. A step takes the mean of their gradients. Default 1. */
  accumulation?: number;
  /** Format of parameters and gradients in their buffers. Below "f32", the optimizer also keeps the parameters in f32. Default "f32". */
  precision?: "f32" | "f16" | "bf16";
  /**
   * Keeps "bf16" parameters only in bf16. Each step rounds them to the nearest value, or up or down at random so that the mean of many steps
   * is exact. `seed` is 0 by default. Default: the optimizer keeps them in f32 as well.
   */
  rounding?: "nearest" | { stochastic: { seed?: number } };
  /** Keeps of the f32 masters of "bf16" parameters only the 16 bits that these lack. Default false. */
  splitMasters?: boolean;
  /** Observes the first of every so many steps, at least 1, for `takeTelemetry()`. */
  telemetry?: number;
  /**
   * Keeps an average of every parameter over the steps, for `evaluate()`: with `mean` the mean, otherwise a moving average with this `decay`
   * in [0, 1) (0.999), which with `warmup` (true) begins as a mean. Updates follow steps `start` + `every`, `start` + 2 `every` and so on
   * (0 and 1). `precision` is how averages are stored ("f32"); "bf16" needs bf16 parameters with a `rounding` or with `splitMasters`.
   */
  average?: { mean?: boolean; decay?: number; warmup?: boolean; start?: number; every?: number; precision?: "f32" | "bf16" };
}

/** A tensor of parameters, zero at first. */
export interface TensorSpec {
  /** A unique name, not empty. */
  name: string;
  /** Sizes of its dimensions, at least 1; empty for a scalar. */
  shape: number[];
  /** Index of its parameter group. Default 0. */
  group?: number;
  /**
   * How matrix bases (Muon, AdaGO, NAMO, NAMO-D, NorMuon) and Adafactor read it: as a matrix of (out, in) (default), (in, out) or (first,
   * all others), or not as a matrix. Matrix bases step tensors that are not matrices by their fallback.
   */
  layout?: "out_in" | "in_out" | "flattened" | "fallback";
  /** Number of components, each with a factor of the learning rate: coordinate i has factor i modulo this. See `writeRates`. */
  components?: number;
}

/** A base times an update policy. Omitted fields have their defaults. */
export interface Recipe {
  base:
    | AdamW
    | Lion
    | Muon
    | AdaGo
    | Sgd
    | RmsProp
    | AdaGrad
    | Adam
    | NAdam
    | RAdam
    | AdaMomentum
    | MAdam
    | LaMAdam
    | AdaGradNorm
    | Adan
    | Adafactor
    | ScheduleFreeAdamW
    | ScheduleFreeSgd
    | Namo
    | NamoD
    | NorMuon
    | CustomBase;
  /** Default: plain. */
  policy?: Policy;
  /**
   * How states are stored that have a number for each coordinate: in f32, or in one byte each, rounded at random so that the mean of many
   * steps is exact. Bases whose state must be exact refuse "8bit" with the reason. Default: "f32".
   */
  state?: "f32" | "8bit";
}

/**
 * A custom base, which the page supplies as WGSL. docs/custom.md describes the WGSL. The browser's compiler checks it when an optimizer is
 * created. An error has the code "custom" and names the line and column.
 */
export interface CustomBase {
  type: "custom";
  /** The WGSL. Comments that begin with `//@` declare its name, states and hyper-parameters. */
  wgsl: string;
  /** Learning rate, ≥ 0. Default: the value that the WGSL declares, or 1e-3. */
  lr?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
  /** Values of hyper-parameters, by name. Default: the values that the WGSL declares. */
  scalars?: Record<string, number>;
}

/** AdamW (Loshchilov & Hutter, 2019). */
export interface AdamW {
  type: "adamw";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the first and second moment, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Where ε is added. Default "before_bias_correction"; PyTorch adds it after. */
  epsPlacement?: "before_bias_correction" | "after_bias_correction";
  /** The rate that weight decay follows. Default "bias_corrected"; PyTorch's is "base". */
  decayRate?: "bias_corrected" | "base";
  /** What has its own second moment. Default "coordinate". "row" saves nearly 4 bytes per parameter. */
  secondMoment?: "coordinate" | "row";
  /** Whether to divide by the largest second moment so far. Default false. */
  amsgrad?: boolean;
  /** p of (√v + ε)^2p in the direction, in (0, 0.5]. Below 0.5 this is Padam. Default 0.5. */
  power?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Lion (Chen et al., 2023). */
export interface Lion {
  type: "lion";
  /** Learning rate, ≥ 0. Default 1e-4. */
  lr?: number;
  /** Interpolation for the direction and decay of the momentum, each in [0, 1). Default [0.9, 0.99]. */
  betas?: [number, number];
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Muon (Jordan et al., 2024), for matrices. */
export interface Muon {
  type: "muon";
  /** Learning rate, ≥ 0. Default 2e-2. */
  lr?: number;
  /** In [0, 1). Default 0.95. */
  momentum?: number;
  /** Whether the direction looks a step ahead. Default true. */
  nesterov?: boolean;
  /** Newton–Schulz iterations, 1 to 100. Default 5. */
  nsSteps?: number;
  /** Coefficients of all iterations, or of each, up to 6. Default "quintic": [3.4445, -4.775, 2.0315]. */
  nsCoefficients?: [number, number, number] | [number, number, number][] | "quintic" | "polar_express" | "polar_express_4";
  /** How the step depends on the shape of the matrix. Default "original". */
  scale?: "original" | "match_rms_adamw" | "none";
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Steps tensors that are not matrices. */
  fallback?: AdamW;
  /** Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** AdaGO (Zhang et al., 2025), for matrices. */
export interface AdaGo {
  type: "adago";
  /** Learning rate, ≥ 0. Default 5e-2. */
  lr?: number;
  /** In [0, 1). Default 0.95. */
  momentum?: number;
  /** Largest norm that a gradient counts with. Default 10. */
  clip?: number;
  /** The smallest step, ≥ 0. It changes in proportion with the learning rate. Default 5e-4. */
  minStep?: number;
  /** Square root of the accumulator before the first step. Default 1e-6. */
  accumulatorInit?: number;
  /** Newton–Schulz iterations, 1 to 100. Default 5. */
  nsSteps?: number;
  /** Coefficients of all iterations, or of each, up to 6. Default "quintic": [3.4445, -4.775, 2.0315]. */
  nsCoefficients?: [number, number, number] | [number, number, number][] | "quintic" | "polar_express" | "polar_express_4";
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Steps tensors that are not matrices. */
  fallback?: AdamW;
  /** Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** NAMO (Zhang et al., 2026), for matrices. */
export interface Namo {
  type: "namo";
  /** Learning rate, ≥ 0. Default 1e-2. */
  lr?: number;
  /** In [0, 1). Default 0.95. */
  momentum?: number;
  /** Whether the direction looks a step ahead. Default true. */
  nesterov?: boolean;
  /** Decay of the average of squared norms, in [0, 1). Default 0.99. */
  normBeta?: number;
  /** ε, at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** How the step depends on the shape. Default "match_rms_adamw". */
  scale?: "original" | "match_rms_adamw" | "none";
  /** Largest step; null for no limit. Default 1. */
  maxStep?: number | null;
  /** Newton–Schulz iterations, 1 to 100. Default 5. */
  nsSteps?: number;
  /** Coefficients of all iterations, or of each, up to 6. Default "quintic": [3.4445, -4.775, 2.0315]. */
  nsCoefficients?: [number, number, number] | [number, number, number][] | "quintic" | "polar_express" | "polar_express_4";
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
  /** AdamW for tensors that are not matrices. */
  fallback?: AdamW;
}

/** NAMO-D (Zhang et al., 2026), for matrices: NAMO with one rate per input. */
export interface NamoD {
  type: "namo_d";
  /** Learning rate, ≥ 0. Default 1e-2. */
  lr?: number;
  /** In [0, 1). Default 0.95. */
  momentum?: number;
  /** Whether the direction looks a step ahead. Default true. */
  nesterov?: boolean;
  /** Decay of the averages of squared norms, in [0, 1). Default 0.99. */
  normBeta?: number;
  /** ε, at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** How the step depends on the shape. Default "match_rms_adamw". */
  scale?: "original" | "match_rms_adamw" | "none";
  /** Largest step; null for no limit. Default 1. */
  maxStep?: number | null;
  /** c, in (0, 1]. The rates of inputs lie between c and 1/c times their mean. Default 0.75. */
  clamp?: number;
  /** Newton–Schulz iterations, 1 to 100. Default 5. */
  nsSteps?: number;
  /** Coefficients of all iterations, or of each, up to 6. Default "quintic": [3.4445, -4.775, 2.0315]. */
  nsCoefficients?: [number, number, number] | [number, number, number][] | "quintic" | "polar_express" | "polar_express_4";
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
  /** AdamW for tensors that are not matrices. */
  fallback?: AdamW;
}

/** NorMuon (Li et al., 2025), for matrices: Muon whose steps have a similar size for all outputs. */
export interface NorMuon {
  type: "normuon";
  /** Learning rate, ≥ 0. Default 2e-2. */
  lr?: number;
  /** In [0, 1). Default 0.95. */
  momentum?: number;
  /** Whether the direction looks a step ahead. Default true. */
  nesterov?: boolean;
  /** Decay of the moments of outputs, in [0, 1). Default 0.95. */
  beta2?: number;
  /** ε, at least 2⁻¹²⁶. Default 1e-10. */
  eps?: number;
  /** Newton–Schulz iterations, 1 to 100. Default 5. */
  nsSteps?: number;
  /** Coefficients of all iterations, or of each, up to 6. Default "quintic": [3.4445, -4.775, 2.0315]. */
  nsCoefficients?: [number, number, number] | [number, number, number][] | "quintic" | "polar_express" | "polar_express_4";
  /** How the step depends on the shape. Default "original". */
  scale?: "original" | "match_rms_adamw" | "none";
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
  /** AdamW for tensors that are not matrices. */
  fallback?: AdamW;
}

/** SGD, with or without momentum. */
export interface Sgd {
  type: "sgd";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** In [0, 1). 0 keeps no state. Default 0. */
  momentum?: number;
  /** Share of a gradient that the momentum leaves out after the first step, in [0, 1]. Default 0. */
  dampening?: number;
  /** Whether the direction looks a step ahead. Default false. */
  nesterov?: boolean;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay shrinks the parameter instead of being a part of the gradient. Default false. */
  decoupledWeightDecay?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0; needs a decoupled weight decay. Default false. */
  cautiousWeightDecay?: boolean;
}

/** RMSprop (Hinton, 2012). */
export interface RmsProp {
  type: "rmsprop";
  /** Learning rate, ≥ 0. Default 1e-2. */
  lr?: number;
  /** Decay of the averages, in [0, 1). Default 0.99. */
  alpha?: number;
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** In [0, 1). 0 keeps none. Default 0. */
  momentum?: number;
  /** Whether to divide by the standard deviation. Default false. */
  centered?: boolean;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay shrinks the parameter instead of being a part of the gradient. Default false. */
  decoupledWeightDecay?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0; needs a decoupled weight decay. Default false. */
  cautiousWeightDecay?: boolean;
}

/** AdaGrad (Duchi et al., 2011). */
export interface AdaGrad {
  type: "adagrad";
  /** Learning rate, ≥ 0. Default 1e-2. */
  lr?: number;
  /** Share by which the learning rate shrinks per step, ≥ 0. Default 0. */
  lrDecay?: number;
  /** Sum of squares before the first step, ≥ 0. Default 0. */
  accumulatorInit?: number;
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-10. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay shrinks the parameter instead of being a part of the gradient. Default false. */
  decoupledWeightDecay?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0; needs a decoupled weight decay. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Adam (Kingma and Ba, 2015), with weight decay in the gradient. */
export interface Adam {
  type: "adam";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the first and second moment, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether to divide by the largest second moment so far. Default false. */
  amsgrad?: boolean;
  /** Refused: weight decay is a part of the gradient. Default false. */
  cautiousWeightDecay?: boolean;
}

/** NAdam (Dozat, 2016). */
export interface NAdam {
  type: "nadam";
  /** Learning rate, ≥ 0. Default 2e-3. */
  lr?: number;
  /** Decay of the first and second moment, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** How fast the momentum rises to its final value, ≥ 0. Default 4e-3. */
  momentumDecay?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay shrinks the parameter instead of being a part of the gradient. Default false. */
  decoupledWeightDecay?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0; needs a decoupled weight decay. Default false. */
  cautiousWeightDecay?: boolean;
}

/** RAdam (Liu et al., 2020). */
export interface RAdam {
  type: "radam";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the first and second moment, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay shrinks the parameter instead of being a part of the gradient. Default false. */
  decoupledWeightDecay?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0; needs a decoupled weight decay. Default false. */
  cautiousWeightDecay?: boolean;
}

/** AdaMomentum (Wang et al., 2023). */
export interface AdaMomentum {
  type: "adamomentum";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the first and second moment, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε, at least 2⁻¹²⁶. Default 1e-16. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** MAdam (Zhu et al., 2021). */
export interface MAdam {
  type: "madam";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the momentum, and the largest decay of mean and variance, each in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** The smallest decay of mean and variance, in [0, betas[1]]. Default 0.5. */
  beta2Min?: number;
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** LaMAdam (Zhu et al., 2021): MAdam that divides each gradient before the momentum averages it. */
export interface LaMAdam {
  type: "lamadam";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the momentum, and the largest decay of mean and variance, each in [0, 1). Default [0.9, 0.98]. */
  betas?: [number, number];
  /** The smallest decay of mean and variance, in [0, betas[1]]. Default 0.5. */
  beta2Min?: number;
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-15. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** AdaGrad-Norm (Ward et al., 2019): one adaptive step size per tensor. Only with the policies plain and mgup. */
export interface AdaGradNorm {
  type: "adagrad_norm";
  /** Learning rate, ≥ 0. Default 1. */
  lr?: number;
  /** Square root of the accumulator before the first step, 1.1e-19 to 1.8e19. Default 1e-2. */
  accumulatorInit?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Adafactor (Shazeer and Stern, 2018), as in Burn: one second moment per row and one per column of a matrix. */
export interface Adafactor {
  type: "adafactor";
  /** Learning rate, ≥ 0. Default 1e-2. */
  lr?: number;
  /** Exponent of the number t of the step in the decay 1 − t^decayRate, negative. Default -0.8. */
  decayRate?: number;
  /** ε1, added to squared gradients, at least 2⁻¹²⁶. Default 1e-30. */
  eps?: number;
  /** ε2, the lower bound of the root mean square of a parameter, at least 2⁻¹²⁶. Default 1e-3. */
  epsScale?: number;
  /** Largest root mean square of the direction, at least 2⁻¹²⁶. Longer directions are scaled down to it. Default 1. */
  clipThreshold?: number;
  /** Whether the learning rate is at most 1/√t. Default true. */
  relativeStep?: boolean;
  /** Whether steps are in proportion to the size of the parameter. Default true. */
  scaleParameter?: boolean;
  /** Whether matrices have moments of rows and columns, instead of one per coordinate. Default true. */
  factored?: boolean;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Schedule-free AdamW (Defazio et al., 2024). Call `evaluate` before you evaluate the model, and `train` before you continue to train. */
export interface ScheduleFreeAdamW {
  type: "schedule_free_adamw";
  /** Learning rate, ≥ 0. Default 2.5e-3. */
  lr?: number;
  /** Share of the average in the parameters, in (0, 1), and decay of the second moment, in [0, 1). Default [0.9, 0.999]. */
  betas?: [number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** Exponent of the step in the weights of the average, 0 to 10. Default 0. */
  r?: number;
  /** Exponent of the largest learning rate in these weights, 0 to 4. Default 2. */
  weightLrPower?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Schedule-free SGD (Defazio et al., 2024). Call `evaluate` before you evaluate the model, and `train` before you continue to train. */
export interface ScheduleFreeSgd {
  type: "schedule_free_sgd";
  /** Learning rate, ≥ 0. Default 1. */
  lr?: number;
  /** Share of the average in the parameters, in (0, 1). Default 0.9. */
  momentum?: number;
  /** Exponent of the step in the weights of the average, 0 to 10. Default 0. */
  r?: number;
  /** Exponent of the largest learning rate in these weights, 0 to 4. Default 2. */
  weightLrPower?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** Adan (Xie et al., 2022). */
export interface Adan {
  type: "adan";
  /** Learning rate, ≥ 0. Default 1e-3. */
  lr?: number;
  /** Decay of the averages of the gradient, of its change, and of the square, each in [0, 1). Default [0.98, 0.92, 0.99]. */
  betas?: [number, number, number];
  /** ε: 0, or at least 2⁻¹²⁶. Default 1e-8. */
  eps?: number;
  /** ≥ 0. Default 0. */
  weightDecay?: number;
  /** Whether parameters shrink by lr · weightDecay instead of being divided by 1 + lr · weightDecay. Default false. */
  noProx?: boolean;
  /** Whether weight decay leaves out parameters that the step moves away from 0. Default false. */
  cautiousWeightDecay?: boolean;
}

/** `ratio` is τ, in (0, 1), default 0.5. `alpha` (default 1/τ) and `gamma` (default τ) are ≥ 0. "grams" is refused for matrix bases. */
export type Policy =
  | { type: "plain" }
  | { type: "cautious"; normalizer?: "mean" | "count" }
  | { type: "mgup"; ratio?: number; alpha?: number; gamma?: number; selection?: "exact" | "approximate" | "random" }
  | { type: "cautious_mgup"; ratio?: number; alpha?: number; gamma?: number }
  | { type: "grams" }
  // A custom policy, which the page supplies as WGSL, with values of its hyper-parameters. It is refused for matrix bases.
  | { type: "custom"; wgsl: string; scalars?: Record<string, number> };

/** A linear warm-up, then a shape; steps are counted from 0, the warm-up's included. */
export type LrSchedule = { warmup?: number } & (
  | { type: "constant" }
  | { type: "cosine"; steps: number; floor: number }
  | { type: "linear"; steps: number; floor: number }
  | { type: "step"; every: number; factor: number }
  | { type: "stable"; steps: number; decay: number; floor: number }
);

/** Bytes of a buffer: a resource for `createBindGroup`, except states of one number, such as AdaGO's `accumulator`. */
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
  /** Factor for the next loss; 1 without a `gradScaler`. */
  lossScale: number;
  skipped: boolean;
  skippedSteps: number;
}

/** What an observed step did. */
export interface Telemetry {
  /** Number of the step, from 1. */
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

/** Which cases `verify` runs. Default: all. */
export interface VerifyOptions {
  /** Names of recipes, as in the verdicts. */
  recipes?: string[];
  /** Largest number of coordinates of a tensor. */
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
  /** Why the recipe failed; absent if it passed. */
  failure?: string;
}
