// A mask of one bit per coordinate, and how many are set in each tensor.

import package::lib::flags::{flags_of, mask_shift, mask_word};
import package::tables::{Chunk, EACH, LANES, tensors};

override COUNTS: bool = false;

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

var<workgroup> marked: atomic<u32>;
var<private> bits: u32;
var<private> counted: u32;

fn marks(chunk: Chunk, vector: u32) -> vec4<bool> {
    let word = mask[mask_word(chunk, vector)];
    return (vec4<u32>(word >> mask_shift(vector)) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(0u);
}

fn begin_marks(lane: u32) {
    if lane == 0u { atomicStore(&marked, 0u); }
}

fn mark(found: vec4<bool>, chunk: Chunk, vector: u32) {
    let inside = 4u * vector + EACH < vec4<u32>(chunk.len);
    bits |= flags_of(found & inside) << mask_shift(vector);
    // The last vector of this word, or of the lane.
    if mask_shift(vector) == 28u || 4u * (vector + LANES) >= chunk.len {
        mask[mask_word(chunk, vector)] = bits;
        counted += countOneBits(bits);
        bits = 0u;
    }
}

fn count_marks(chunk: Chunk, lane: u32) {
    if !COUNTS { return; }
    workgroupBarrier();
    atomicAdd(&marked, counted);
    workgroupBarrier();
    if lane == 0u { atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&marked)); }
}
