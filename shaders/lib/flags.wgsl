// Flags of the coordinates of a vector, and where a chunk's bits lie: each lane has 4 bits for each of its vectors, 8 vectors in a word, so
// that it writes whole words.

import package::tables::{CHUNK, Chunk, LANES};

fn mask_word(chunk: Chunk, vector: u32) -> u32 {
    return chunk.mask + chunk.index % CHUNK / 32u + vector / (8u * LANES) * LANES + vector % LANES;
}

fn mask_shift(vector: u32) -> u32 {
    return 4u * (vector / LANES % 8u);
}

fn flags_of(found: vec4<bool>) -> u32 {
    let flags = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), found);
    return (flags.x | flags.y) | (flags.z | flags.w);
}

fn ones(found: vec4<bool>) -> u32 {
    let each = select(vec4<u32>(0u), vec4<u32>(1u), found);
    return (each.x + each.y) + (each.z + each.w);
}
