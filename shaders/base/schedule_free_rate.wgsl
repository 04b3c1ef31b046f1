// lr_max ← max(lr_max, lr) ;  weight = t^r lr_max^p ;  sum ← sum · (weight before / weight) + 1 ;  c = 1 / sum. The sum is relative to the
// last weight, so that large powers do not leave f32. c = 0 while weights are 0.

import package::tables::{Scalars, tensors};

fn norms_of(lane: u32, tensor: u32) -> vec2<f32> {
    return vec2<f32>();
}

fn power_of(x: f32, exponent: f32) -> f32 {
    return select(pow(x, exponent), 1.0, exponent == 0.0);
}

fn set_rate(tensor: u32, s: Scalars, norms: vec2<f32>) {
    let before = tensors.each[tensor].largest_lr;
    let largest = max(before, s.lr);
    tensors.each[tensor].largest_lr = largest;
    if largest == 0.0 && s.power > 0.0 {
        tensors.each[tensor].inverse_norm = 0.0;
        return;
    }
    let t = f32(s.t);
    let grown = select(1.0, power_of(before / largest, s.power), largest > 0.0);
    let sum = tensors.each[tensor].accumulator * (power_of((t - 1.0) / t, s.lr_decay) * grown) + 1.0;
    tensors.each[tensor].accumulator = sum;
    tensors.each[tensor].inverse_norm = 1.0 / sum;
}
