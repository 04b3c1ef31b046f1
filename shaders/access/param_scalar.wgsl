// Parameters whose number is not a multiple of four, in a caller's buffer: what follows the last coordinate is not ours to read or write.

import package::tables::Chunk;

@group(1) @binding(0) var<storage, read_write> param: array<f32>;

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    let first = chunk.param + 4u * vector;
    var value = vec4<f32>(param[first], 0.0, 0.0, 0.0);
    if lanes > 1u { value.y = param[first + 1u]; }
    if lanes > 2u { value.z = param[first + 2u]; }
    if lanes > 3u { value.w = param[first + 3u]; }
    return value;
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    let first = chunk.param + 4u * vector;
    param[first] = value.x;
    if lanes > 1u { param[first + 1u] = value.y; }
    if lanes > 2u { param[first + 2u] = value.z; }
    if lanes > 3u { param[first + 3u] = value.w; }
}
