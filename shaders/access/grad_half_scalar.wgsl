// Gradients of two bytes, or parameters in their place, whose number is not a multiple of four, in a caller's buffer: words after
// that of the last coordinate are not ours to read or write.

import package::access::half::{narrow, widen};
import package::lib::halves::{packed, widened};
import package::tables::EACH;

@group(1) @binding(1) var<storage, read_write> grad: array<u32>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    var words = vec2<u32>(grad[2u * vector], 0u);
    if lanes > 2u { words.y = grad[2u * vector + 1u]; }
    return select(vec4<f32>(), widened(words), EACH < vec4<u32>(lanes));
}

fn load_one(at: u32) -> f32 {
    return widen(vec4<u32>((grad[at / 2u] >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_half(vector: u32, lanes: u32, value: vec4<f32>) {
    let words = packed(narrow(value));
    grad[2u * vector] = words.x;
    if lanes > 2u { grad[2u * vector + 1u] = words.y; }
}
