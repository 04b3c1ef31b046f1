// Sets bits of the mask, on a GPU: each lane has one vector, and lanes share words.

import package::lib::{flags::mask_word, mask::{bits_of, count_marks, mask, marked}};
import package::tables::{Chunk, LANES};

var<workgroup> words: array<atomic<u32>, LANES>;

fn begin_marks(lane: u32) {
    if lane == 0u { atomicStore(&marked, 0u); }
    if lane < LANES { atomicStore(&words[lane], 0u); }
    workgroupBarrier();
}

fn mark(found: vec4<bool>, chunk: Chunk, vector: u32) {
    atomicOr(&words[vector % LANES], bits_of(found, chunk, vector));
}

fn end_marks(chunk: Chunk, lane: u32) {
    workgroupBarrier();
    var counted = 0u;
    if lane < LANES && 4u * lane < chunk.len {
        let word = atomicLoad(&words[lane]);
        mask[mask_word(chunk, lane)] = word;
        counted = countOneBits(word);
    }
    count_marks(chunk, lane, counted);
}
