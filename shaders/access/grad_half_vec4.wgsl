// Gradients of two bytes, or parameters in their place, four coordinates at a time.

import package::access::half::{narrow, widen};
import package::lib::halves::{packed, widened};

@group(1) @binding(1) var<storage, read_write> grad: array<vec2<u32>>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    return widened(grad[vector]);
}

fn load_one(at: u32) -> f32 {
    return widen(vec4<u32>((grad[at / 4u][at % 4u / 2u] >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_half(vector: u32, lanes: u32, value: vec4<f32>) {
    grad[vector] = packed(narrow(value));
}
