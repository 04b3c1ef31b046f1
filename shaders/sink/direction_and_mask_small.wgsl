// As `direction_and_mask.wgsl`, where lanes share the words of the mask.

import package::lib::flags::{flags_of, mask_shift, mask_word};
import package::tables::{Chunk, LANES, Scalars};

@group(1) @binding(0) var<storage, read_write> directions: array<vec4<f32>>;
@group(2) @binding(0) var<storage, read_write> mask: array<atomic<u32>>;

fn begin_sink(chunk: Chunk, lane: u32) {
    if lane < LANES {
        for (var j = lane; 4u * j < chunk.len; j += 8u * LANES) {
            atomicStore(&mask[mask_word(chunk, j)], 0u);
        }
    }
    storageBarrier();
}

fn emit(chunk: Chunk, vector: u32, s: Scalars, factor: vec4<f32>, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    directions[chunk.offset / 4u + vector] = direction;
    atomicOr(&mask[mask_word(chunk, vector)], flags_of(selected) << mask_shift(vector));
}
