// Corrects what the stream decided wrongly about a vector of a chunk, which is the vector `at` of a piece, with its offsets.

import package::access::{offset::{load_offset, store_offset}, param::{load_param, store_param}};
import package::lib::{averaged::averaged, notes::{SELECTED, UNDECIDED}, rates::rates_of, step::taken_of};
import package::policy::{factors, phi};
import package::tables::{Chunk, Scalars};

fn correct(chunk: Chunk, vector: u32, piece: Chunk, at: u32, s: Scalars, direction: vec4<f32>, was: vec4<u32>, selected: vec4<bool>) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let factor = phi(factors(chunk, s), selected, vec4<f32>());
    let before = phi(factors(chunk, s), was == vec4<u32>(SELECTED), vec4<f32>());
    let theta = load_param(piece, at, lanes);
    let place = piece.offset / 4u + at;
    let offset = load_offset(place);
    let rate = rates_of(chunk, vector);
    let whole = averaged(theta, offset, taken_of(theta, factor, direction, vec4<f32>(s.decay), rate, s), s);
    // If the step was taken, only the part that it subtracts changes.
    let zero = vec4<f32>();
    let change = averaged(zero, zero, rate * (s.step * ((factor - before) * direction)), s);
    let undecided = was == vec4<u32>(UNDECIDED);
    let kept = !undecided & (before == factor);
    store_param(piece, at, lanes, select(select(theta + change.param, whole.param, undecided), theta, kept));
    // The offset changes like the parameter.
    store_offset(place, select(select(offset + change.offset, whole.offset, undecided), offset, kept));
}
