// Selects the coordinates in the mask of an earlier kernel.

import package::lib::mask::marks;
import package::tables::Chunk;

fn begin_selection(chunk: Chunk) {}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    return marks(chunk, vector);
}

fn end_selection(chunk: Chunk, lane: u32) {}
