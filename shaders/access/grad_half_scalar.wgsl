// Gradients of two bytes, or parameters in their place, whose number is not a multiple of four, in a caller's buffer: words after
// that of the last coordinate are not ours to read or write.

import package::access::half::{narrow, widen};

@group(1) @binding(1) var<storage, read_write> grad: array<u32>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    let first = grad[2u * vector];
    var second = 0u;
    if lanes > 2u { second = grad[2u * vector + 1u]; }
    let bits = vec4<u32>(first, first >> 16u, second, second >> 16u) & vec4<u32>(0xffffu);
    return widen(select(vec4<u32>(), bits, vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(lanes)));
}

fn load_one(at: u32) -> f32 {
    return widen(vec4<u32>((grad[at / 2u] >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_half(vector: u32, lanes: u32, value: vec4<f32>) {
    let bits = narrow(value);
    grad[2u * vector] = bits.x | (bits.y << 16u);
    if lanes > 2u { grad[2u * vector + 1u] = bits.z | (bits.w << 16u); }
}
