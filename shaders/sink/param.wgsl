// Directions move the parameters. Undecided coordinates keep theirs.

import package::access::{param::load_param, stepped::store_stepped};
import package::lib::{lines::decay_of, rates::rates_of, step::step};
import package::tables::{Chunk, Scalars};

fn begin_sink(chunk: Chunk, lane: u32) {}

fn emit(chunk: Chunk, vector: u32, s: Scalars, factor: vec4<f32>, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let theta = load_param(chunk, vector, lanes);
    let moved = step(theta, factor, direction, decay_of(chunk, vector, s), rates_of(chunk, vector), s);
    store_stepped(chunk, vector, lanes, select(moved, theta, undecided), s, vec4<bool>(false));
}

fn end_sink(chunk: Chunk, lane: u32) {}
