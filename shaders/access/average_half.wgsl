// The averages of the parameters over the steps of a run, in bf16: rounded up or down at random, so that small updates add up.

import package::lib::{halves::{packed, widened}, narrow_at_random::narrow_at_random, noise::noise_of};
import package::tables::{Chunk, EACH};

@group(2) @binding(0) var<storage, read_write> param_average: array<vec2<u32>>;

const OF_AVERAGES: u32 = 0x5eedau;

fn load_average(place: u32) -> vec4<f32> {
    return widened(param_average[place]);
}

fn store_average(chunk: Chunk, vector: u32, mean: vec4<f32>, step: u32) {
    let index = vec4<u32>(chunk.index + 4u * vector) + EACH;
    let noise = noise_of(chunk.tensor, index, step, OF_AVERAGES) >> vec4<u32>(16u);
    param_average[chunk.offset / 4u + vector] = packed(narrow_at_random(mean, noise));
}
