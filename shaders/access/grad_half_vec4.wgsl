// Gradients of two bytes, or parameters in their place, four coordinates at a time.

import package::access::half::{narrow, widen};

@group(1) @binding(1) var<storage, read_write> grad: array<vec2<u32>>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    let words = grad[vector];
    return widen(vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u));
}

fn load_one(at: u32) -> f32 {
    return widen(vec4<u32>((grad[at / 4u][at % 4u / 2u] >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_half(vector: u32, lanes: u32, value: vec4<f32>) {
    let bits = narrow(value);
    grad[vector] = vec2<u32>(bits.x | (bits.y << 16u), bits.z | (bits.w << 16u));
}
