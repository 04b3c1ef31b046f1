// The averages of the parameters over the steps of a run, in f32.

import package::tables::Chunk;

@group(2) @binding(0) var<storage, read_write> param_average: array<vec4<f32>>;

fn load_average(place: u32) -> vec4<f32> {
    return param_average[place];
}

fn store_average(chunk: Chunk, vector: u32, mean: vec4<f32>, step: u32) {
    param_average[chunk.offset / 4u + vector] = mean;
}
