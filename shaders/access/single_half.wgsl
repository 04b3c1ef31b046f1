// Single parameters in bf16 without masters. Another lane may write the other half of the word at the same time.

import package::access::{bits::param, half::widen, stepped::rounded};
import package::tables::{Chunk, Scalars};

fn load_single(piece: Chunk, index: u32) -> f32 {
    let at = piece.param + (index - piece.index);
    return widen(vec4<u32>((atomicLoad(&param[at / 2u]) >> (16u * (at % 2u))) & 0xffffu)).x;
}

fn store_single(piece: Chunk, index: u32, value: f32, s: Scalars) {
    let at = piece.param + (index - piece.index);
    let half = 16u * (at % 2u);
    let old = (atomicLoad(&param[at / 2u]) >> half) & 0xffffu;
    let bits = rounded(piece.tensor, vec4<u32>(index), vec4<f32>(value), s, vec4<bool>(false)).x;
    atomicXor(&param[at / 2u], (old ^ bits) << half);
}
