// lr_max ← max(lr_max, lr) ;  weight = t^r lr_max^p ;  sum ← sum + weight ;  c = weight / sum, or 0 where the sum is 0

import package::tables::{Scalars, tensors};

fn norms_of(lane: u32, tensor: u32) -> vec2<f32> {
    return vec2<f32>();
}

fn power_of(x: f32, exponent: f32) -> f32 {
    return select(pow(x, exponent), 1.0, exponent == 0.0);
}

fn set_rate(tensor: u32, s: Scalars, norms: vec2<f32>) {
    let largest = max(tensors.each[tensor].largest_lr, s.lr);
    let weight = power_of(f32(s.t), s.lr_decay) * power_of(largest, s.power);
    let sum = tensors.each[tensor].accumulator + weight;
    tensors.each[tensor].largest_lr = largest;
    tensors.each[tensor].accumulator = sum;
    tensors.each[tensor].inverse_norm = select(0.0, weight / sum, sum > 0.0);
}
