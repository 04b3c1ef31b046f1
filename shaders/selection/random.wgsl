// Selects K coordinates of a tensor at random, whatever their scores are: those that a permutation puts before the others. It depends on the
// step and the number of coordinates; `random` in `src/recipe/policy/select.rs` is the same on the CPU.

import package::lib::{sampling::hash, skip::scalars_of};
import package::tables::{Chunk, tensors};

var<private> half_bits: u32;
var<private> at_step: u32;

fn begin_selection(chunk: Chunk) {
    let bits = 32u - countLeadingZeros(tensors.each[chunk.tensor].numel - 1u);
    half_bits = max(1u, (bits + 1u) / 2u);
    at_step = scalars_of(chunk).t;
}

// A Feistel network over two halves of the bits. Places beyond the tensor go on until they lie in it.
fn permuted(index: u32, numel: u32) -> u32 {
    let half_mask = (1u << half_bits) - 1u;
    var at = index;
    loop {
        for (var round = 0u; round < 4u; round += 1u) {
            let low = at & half_mask;
            at = (low << half_bits) | (((at >> half_bits) ^ hash(4u * at_step + round, low)) & half_mask);
        }
        if at < numel { break; }
    }
    return at;
}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    let numel = tensors.each[chunk.tensor].numel;
    var places: vec4<u32>;
    for (var i = 0u; i < 4u; i += 1u) {
        places[i] = permuted(min(chunk.index + 4u * vector + i, numel - 1u), numel);
    }
    return places < vec4<u32>(tensors.each[chunk.tensor].k);
}

fn end_selection(chunk: Chunk, lane: u32) {
    if lane == 0u && chunk.len > 0u && chunk.index == 0u {
        atomicStore(&tensors.each[chunk.tensor].selected, tensors.each[chunk.tensor].k);
    }
}
