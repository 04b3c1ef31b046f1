// Gradients of two bytes, or parameters in their place, whose number is not a multiple of four, in a caller's buffer: words after
// that of the last coordinate are not ours to read or write.

import package::access::half::{narrow, widen};

@group(1) @binding(1) var<storage, read_write> grad: array<u32>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    var bits = vec4<u32>();
    for (var c = 0u; c < lanes; c += 1u) {
        bits[c] = (grad[2u * vector + c / 2u] >> (16u * (c % 2u))) & 0xffffu;
    }
    return widen(bits);
}

fn load_one(at: u32) -> f32 {
    return widen(vec4<u32>((grad[at / 2u] >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_half(vector: u32, lanes: u32, value: vec4<f32>) {
    var bits = narrow(value);
    for (var c = 0u; c < lanes; c += 2u) {
        let place = 2u * vector + c / 2u;
        grad[place] = bits[c] | (bits[c + 1u] << 16u);
    }
}
