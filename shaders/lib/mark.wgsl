// Sets bits of the mask, on a CPU: each lane writes words of its own.

import package::lib::{flags::{mask_shift, mask_word}, mask::{bits_of, count_marks, mask, marked}};
import package::tables::{Chunk, LANES};

var<private> bits: u32;
var<private> counted: u32;

fn begin_marks(lane: u32) {
    if lane == 0u { atomicStore(&marked, 0u); }
}

fn mark(found: vec4<bool>, chunk: Chunk, vector: u32) {
    bits |= bits_of(found, chunk, vector);
    // The last vector of this word, or of the lane.
    if mask_shift(vector) == 28u || 4u * (vector + LANES) >= chunk.len {
        mask[mask_word(chunk, vector)] = bits;
        counted += countOneBits(bits);
        bits = 0u;
    }
}

fn end_marks(chunk: Chunk, lane: u32) {
    count_marks(chunk, lane, counted);
}
