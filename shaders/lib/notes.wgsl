// What the stream decided about each coordinate, or what leads there again: 2 bits, 8 per vector, 4 vectors in a word, laid out so that a
// lane of the stream writes whole words.

import package::tables::{CHUNK, Chunk, LANES};

const REFUSED: u32 = 0u;
const SELECTED: u32 = 1u;
const UNDECIDED: u32 = 2u;

fn note_word(chunk: Chunk, vector: u32) -> u32 {
    return chunk.mask + chunk.index % CHUNK / 16u + vector / (4u * LANES) * LANES + vector % LANES;
}

fn note_shift(vector: u32) -> u32 {
    return 8u * (vector / LANES % 4u);
}

// Two flags per coordinate.
fn pack_notes(one: vec4<bool>, two: vec4<bool>) -> u32 {
    let bits = select(vec4<u32>(0u), vec4<u32>(1u, 4u, 16u, 64u), one) | select(vec4<u32>(0u), vec4<u32>(2u, 8u, 32u, 128u), two);
    return (bits.x | bits.y) | (bits.z | bits.w);
}

fn unpack_notes(word: u32, vector: u32) -> vec4<u32> {
    return (vec4<u32>(word >> note_shift(vector)) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u);
}

fn decide(selected: vec4<bool>, undecided: vec4<bool>) -> vec4<u32> {
    return select(select(vec4<u32>(REFUSED), vec4<u32>(UNDECIDED), undecided), vec4<u32>(SELECTED), selected);
}
