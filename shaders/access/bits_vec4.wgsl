// The bits of parameters in bf16, four coordinates at a time.

import package::lib::halves::{packed, unpacked};
import package::tables::Chunk;

@group(1) @binding(0) var<storage, read_write> param: array<vec2<u32>>;

fn load_bits(chunk: Chunk, vector: u32, lanes: u32) -> vec4<u32> {
    return unpacked(param[chunk.param / 4u + vector]);
}

fn store_bits(chunk: Chunk, vector: u32, lanes: u32, halves: vec4<u32>) {
    param[chunk.param / 4u + vector] = packed(halves);
}
