// Directions of a matrix base, and a mask of the selected coordinates: their factor follows after the orthogonalization.

import package::lib::mark::{begin_marks, end_marks, mark};
import package::tables::{Chunk, Scalars};

@group(1) @binding(0) var<storage, read_write> directions: array<vec4<f32>>;

fn begin_sink(chunk: Chunk, lane: u32) {
    begin_marks(lane);
}

fn emit(chunk: Chunk, vector: u32, s: Scalars, factor: vec4<f32>, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    directions[chunk.offset / 4u + vector] = direction;
    mark(selected, chunk, vector);
}

fn end_sink(chunk: Chunk, lane: u32) {
    end_marks(chunk, lane);
}
