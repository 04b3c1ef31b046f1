// A mask of one bit per coordinate, and how many are set in each tensor.

import package::lib::flags::{flags_of, mask_shift, mask_word};
import package::tables::{Chunk, EACH, tensors};

override COUNTS: bool = false;

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

var<workgroup> marked: atomic<u32>;

fn marks(chunk: Chunk, vector: u32) -> vec4<bool> {
    let word = mask[mask_word(chunk, vector)];
    return (vec4<u32>(word >> mask_shift(vector)) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(0u);
}

// The bits of a vector in its word.
fn bits_of(found: vec4<bool>, chunk: Chunk, vector: u32) -> u32 {
    let inside = 4u * vector + EACH < vec4<u32>(chunk.len);
    return flags_of(found & inside) << mask_shift(vector);
}

// Adds up what the lanes have set, after `marked` was cleared.
fn count_marks(chunk: Chunk, lane: u32, own: u32) {
    if !COUNTS { return; }
    workgroupBarrier();
    atomicAdd(&marked, own);
    workgroupBarrier();
    if lane == 0u { atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&marked)); }
}
