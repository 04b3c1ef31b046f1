// Selects the coordinates in the notes of the exact selection.

import package::access::notes::load_notes;
import package::lib::notes::{SELECTED, note_word, unpack_notes};
import package::tables::Chunk;

fn begin_selection(chunk: Chunk) {}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    return unpack_notes(load_notes(note_word(chunk, vector)), vector) == vec4<u32>(SELECTED);
}

fn end_selection(chunk: Chunk, lane: u32) {}
