// What is observed of a step: words of each chunk, then of each tensor; and a copy of the parameters.

// Sums: of squared gradients and squared changes; then of the steps as they would be with φ = 1, and of those that were taken.
const SUMS: u32 = 8u;
const PLAIN: u32 = 2u;
const SCALED: u32 = 5u;
// Then counts: positive scores, gradients that are not finite.
const OF_CHUNK: u32 = 10u;      // words; `OF_CHUNK` in `src/plan/layout.rs`
const OF_TENSOR: u32 = 16u;     // words; `OF_TENSOR` there

@group(2) @binding(0) var<storage, read_write> snapshot: array<vec4<f32>>;
@group(3) @binding(0) var<storage, read_write> observations: array<atomic<u32>>;
