// Parameters, four coordinates at a time.

import package::tables::Chunk;

@group(1) @binding(0) var<storage, read_write> param: array<vec4<f32>>;

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    return param[chunk.param / 4u + vector];
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    param[chunk.param / 4u + vector] = value;
}
