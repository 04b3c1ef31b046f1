// Directions of a matrix base, as they lie in the page, on their way to be orthogonalized.

import package::tables::{Chunk, Scalars};

@group(1) @binding(0) var<storage, read_write> directions: array<vec4<f32>>;

fn begin_sink(chunk: Chunk, lane: u32) {}

fn emit(chunk: Chunk, vector: u32, s: Scalars, factor: vec4<f32>, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    directions[chunk.offset / 4u + vector] = direction;
}

fn end_sink(chunk: Chunk, lane: u32) {}
