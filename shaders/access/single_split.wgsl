// Single parameters in bf16 and the lower halves of their masters. Another lane may write the other half of a word at the same time.

import package::access::{bits::param, low::master_low};
import package::lib::split::{below_of, half_of, joined};
import package::tables::{Chunk, Scalars};

fn shift_of(at: u32) -> u32 {
    return 16u * (at % 2u);
}

fn load_single(piece: Chunk, index: u32) -> f32 {
    let at = piece.param + (index - piece.index);
    let low = piece.offset + (index - piece.index);
    let half = (atomicLoad(&param[at / 2u]) >> shift_of(at)) & 0xffffu;
    let below = (atomicLoad(&master_low[low / 2u]) >> shift_of(low)) & 0xffffu;
    return joined(vec4<u32>(half), vec4<u32>(below)).x;
}

fn store_single(piece: Chunk, index: u32, value: f32, s: Scalars) {
    let at = piece.param + (index - piece.index);
    let low = piece.offset + (index - piece.index);
    let half = (atomicLoad(&param[at / 2u]) >> shift_of(at)) & 0xffffu;
    let below = (atomicLoad(&master_low[low / 2u]) >> shift_of(low)) & 0xffffu;
    atomicXor(&param[at / 2u], (half ^ half_of(vec4<f32>(value)).x) << shift_of(at));
    atomicXor(&master_low[low / 2u], (below ^ below_of(vec4<f32>(value)).x) << shift_of(low));
}
