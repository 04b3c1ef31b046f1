// φ = c where s > 0, else 0, with c = 1 / max(mean(mask), 1e-3), or d / (Σ mask + 1)
// The mask and its count are those of an earlier kernel.

import package::tables::{Chunk, Scalars, tensors};

fn factors(chunk: Chunk, s: Scalars) -> vec2<f32> {
    let d = f32(tensors.each[chunk.tensor].numel);
    let positive = f32(atomicLoad(&tensors.each[chunk.tensor].selected));
    let by_mean = 1.0 / max(positive / d, 1e-3);
    let by_count = d / (positive + 1.0);
    return vec2<f32>(select(by_mean, by_count, s.count_normalizer == 1u), 0.0);
}

fn phi(factors: vec2<f32>, selected: vec4<bool>, score: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(factors.y), vec4<f32>(factors.x), selected);
}
