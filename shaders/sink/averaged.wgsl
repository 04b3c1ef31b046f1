// Directions move the parameters and the offsets of a schedule-free base. Undecided coordinates keep theirs.

import package::access::{offset::{load_offset, store_offset}, param::{load_param, store_param}};
import package::lib::{averaged::averaged, rates::rates_of, step::taken_of};
import package::tables::{Chunk, Scalars};

fn begin_sink(chunk: Chunk, lane: u32) {}

fn emit(chunk: Chunk, vector: u32, s: Scalars, factor: vec4<f32>, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let theta = load_param(chunk, vector, lanes);
    let at = chunk.offset / 4u + vector;
    let offset = load_offset(at);
    let taken = taken_of(theta, factor, direction, vec4<f32>(s.decay), rates_of(chunk, vector), s);
    let next = averaged(theta, offset, taken, s);
    store_param(chunk, vector, lanes, select(next.param, theta, undecided));
    store_offset(at, select(next.offset, offset, undecided));
}

fn end_sink(chunk: Chunk, lane: u32) {}
