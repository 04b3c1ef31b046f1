// Corrects what the stream decided wrongly about a vector of a chunk, which is the vector `at` of a piece.

import package::{access::{param::load_param, stepped::store_stepped}, policy::{factors, phi}};
import package::lib::{notes::{SELECTED, UNDECIDED}, rates::rates_of, step::step};
import package::tables::{Chunk, Scalars};

fn correct(chunk: Chunk, vector: u32, piece: Chunk, at: u32, s: Scalars, direction: vec4<f32>, was: vec4<u32>, selected: vec4<bool>) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let factor = phi(factors(chunk, s), selected, vec4<f32>());
    let taken = phi(factors(chunk, s), was == vec4<u32>(SELECTED), vec4<f32>());
    let theta = load_param(piece, at, lanes);
    let rate = rates_of(chunk, vector);
    let moved = step(theta, factor, direction, vec4<f32>(s.decay), rate, s);
    let corrected = theta + rate * (s.step * ((taken - factor) * direction));
    let stepped = was != vec4<u32>(UNDECIDED);
    let decided = select(moved, corrected, stepped);
    store_stepped(piece, at, lanes, select(decided, theta, stepped & (taken == factor)), s, stepped);
}
