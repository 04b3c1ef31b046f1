// `mask.wgsl` where each lane has one vector of a quarter of a chunk: lanes share the words.

import package::lib::flags::{flags_of, mask_shift, mask_word};
import package::tables::{Chunk, EACH, LANES, tensors};

override COUNTS: bool = false;

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

var<workgroup> marked: atomic<u32>;
var<workgroup> words: array<atomic<u32>, LANES>;

fn marks(chunk: Chunk, vector: u32) -> vec4<bool> {
    let word = mask[mask_word(chunk, vector)];
    return (vec4<u32>(word >> mask_shift(vector)) & vec4<u32>(1u, 2u, 4u, 8u)) != vec4<u32>(0u);
}

fn begin_marks(lane: u32) {
    if lane == 0u { atomicStore(&marked, 0u); }
    if lane < LANES { atomicStore(&words[lane], 0u); }
    workgroupBarrier();
}

fn mark(found: vec4<bool>, chunk: Chunk, vector: u32) {
    let inside = 4u * vector + EACH < vec4<u32>(chunk.len);
    atomicOr(&words[vector % LANES], flags_of(found & inside) << mask_shift(vector));
}

fn count_marks(chunk: Chunk, lane: u32) {
    workgroupBarrier();
    if 4u * lane < chunk.len && lane < LANES {
        let word = atomicLoad(&words[lane]);
        mask[mask_word(chunk, lane)] = word;
        if COUNTS { atomicAdd(&marked, countOneBits(word)); }
    }
    if !COUNTS { return; }
    workgroupBarrier();
    if lane == 0u { atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&marked)); }
}
