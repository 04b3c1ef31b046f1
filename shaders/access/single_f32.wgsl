// Single parameters, or masters, whose neighbors in a vector may be another lane's.

import package::access::param::param;
import package::tables::{Chunk, Scalars};

fn load_single(piece: Chunk, index: u32) -> f32 {
    return param[piece.param + (index - piece.index)];
}

fn store_single(piece: Chunk, index: u32, value: f32, s: Scalars) {
    param[piece.param + (index - piece.index)] = value;
}
