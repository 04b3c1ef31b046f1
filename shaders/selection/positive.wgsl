// Selects the positive scores.

import package::lib::order::{ZERO_KEY, key};
import package::tables::Chunk;

fn begin_selection(chunk: Chunk) {}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    return key(score) > vec4<u32>(ZERO_KEY);
}

fn end_selection(chunk: Chunk, lane: u32) {}
