// Parameters in bf16 without masters are rounded as they are written: to the nearest, or up or down at random so that the mean stays. The
// random bits follow from the seed, the step, the name of the tensor and the coordinate; `Rounding` in `src/recipe/precision.rs` is the same on the CPU.

import package::access::{bits::store_bits, half::narrow};
import package::lib::{narrow_at_random::narrow_at_random, noise::noise_of};
import package::tables::{Chunk, EACH, Scalars, grid};

override STOCHASTIC: bool = false;

const LOWER: vec4<u32> = vec4<u32>(0xffffu);
const SIXTEEN: vec4<u32> = vec4<u32>(16u);

fn rounded(tensor: u32, index: vec4<u32>, value: vec4<f32>, s: Scalars, again: vec4<bool>) -> vec4<u32> {
    if STOCHASTIC {
        let random = noise_of(tensor, index, s.t, grid.seed);
        // Values that a step rounds a second time take other bits.
        return narrow_at_random(value, select(random, random >> SIXTEEN, again) & LOWER);
    }
    return narrow(value);
}

fn store_stepped(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>, s: Scalars, again: vec4<bool>) {
    let index = vec4<u32>(chunk.index + 4u * vector) + EACH;
    store_bits(chunk, vector, lanes, rounded(chunk.tensor, index, value, s, again));
}
