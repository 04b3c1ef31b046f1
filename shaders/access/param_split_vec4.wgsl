// Parameters in bf16 and the lower halves of their masters, four coordinates at a time.

import package::lib::{halves::{packed, unpacked}, split::{below_of, half_of, joined}};
import package::tables::Chunk;

@group(1) @binding(0) var<storage, read_write> param: array<vec2<u32>>;
@group(1) @binding(6) var<storage, read_write> master_low: array<vec2<u32>>;

fn load_bits(chunk: Chunk, vector: u32, lanes: u32) -> vec4<u32> {
    return unpacked(param[chunk.param / 4u + vector]);
}

fn store_bits(chunk: Chunk, vector: u32, lanes: u32, halves: vec4<u32>) {
    param[chunk.param / 4u + vector] = packed(halves);
}

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    return joined(load_bits(chunk, vector, lanes), unpacked(master_low[chunk.offset / 4u + vector]));
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    store_bits(chunk, vector, lanes, half_of(value));
    master_low[chunk.offset / 4u + vector] = packed(below_of(value));
}
