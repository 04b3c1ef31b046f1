// Parameters in bf16, whose number is not a multiple of four, in a caller's buffer, and the lower halves of their masters, which are ours:
// words after that of the last parameter are not ours to read or write.

import package::lib::{halves::{packed, unpacked}, split::{below_of, half_of, joined}};
import package::tables::{Chunk, EACH};

@group(1) @binding(0) var<storage, read_write> param: array<u32>;
@group(1) @binding(6) var<storage, read_write> master_low: array<vec2<u32>>;

fn load_bits(chunk: Chunk, vector: u32, lanes: u32) -> vec4<u32> {
    let first = chunk.param / 2u + 2u * vector;
    var words = vec2<u32>(param[first], 0u);
    if lanes > 2u { words.y = param[first + 1u]; }
    return select(vec4<u32>(), unpacked(words), EACH < vec4<u32>(lanes));
}

fn store_bits(chunk: Chunk, vector: u32, lanes: u32, halves: vec4<u32>) {
    let first = chunk.param / 2u + 2u * vector;
    let words = packed(halves);
    param[first] = words.x;
    if lanes > 2u { param[first + 1u] = words.y; }
}

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    return joined(load_bits(chunk, vector, lanes), unpacked(master_low[chunk.offset / 4u + vector]));
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    store_bits(chunk, vector, lanes, half_of(value));
    master_low[chunk.offset / 4u + vector] = packed(below_of(value));
}
