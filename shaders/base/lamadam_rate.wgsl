// ρ ← μ ρ + (1−μ) lr ;  rate = 1 / ρ, or 0 where ρ = 0

import package::tables::{Scalars, tensors};

fn norms_of(lane: u32, tensor: u32) -> vec2<f32> {
    return vec2<f32>();
}

fn set_rate(tensor: u32, s: Scalars, norms: vec2<f32>) {
    let average = s.beta1 * tensors.each[tensor].accumulator + s.one_minus_beta1 * s.lr;
    tensors.each[tensor].accumulator = average;
    tensors.each[tensor].rate = select(0.0, 1.0 / average, average > 0.0);
}
