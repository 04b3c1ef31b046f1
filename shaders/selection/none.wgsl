// Selects nothing, for policies without a selection.

import package::tables::Chunk;

fn begin_selection(chunk: Chunk) {}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    return vec4<bool>(false);
}

fn end_selection(chunk: Chunk, lane: u32) {}
