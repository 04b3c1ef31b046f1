// Corrects what is noted about a vector of a chunk, before the notes are used.

import package::access::notes::notes;
import package::lib::notes::{REFUSED, SELECTED, note_shift, note_word};
import package::tables::{Chunk, Scalars};

fn correct(chunk: Chunk, vector: u32, piece: Chunk, at: u32, s: Scalars, direction: vec4<f32>, was: vec4<u32>, selected: vec4<bool>) {
    let now = select(vec4<u32>(REFUSED), vec4<u32>(SELECTED), selected);
    let wrong = (was ^ now) << vec4<u32>(0u, 2u, 4u, 6u);
    atomicXor(&notes[note_word(chunk, vector)], (wrong.x | wrong.y | wrong.z | wrong.w) << note_shift(vector));
}
