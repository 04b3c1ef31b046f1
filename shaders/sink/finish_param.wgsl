// The step of single coordinates that the stream left as they were. Parameters are reached one at a time, because their neighbors in a
// vector may be another lane's.

import package::{access::single::{load_single, store_single}, policy::{factors, phi}};
import package::lib::{candidates::Candidate, rates::rate_of, step::step};
import package::tables::{Chunk, Scalars};

fn finish(piece: Chunk, s: Scalars, candidate: Candidate, selected: bool) {
    let factor = phi(factors(piece, s), vec4<bool>(selected), vec4<f32>());
    let rate = vec4<f32>(rate_of(piece.tensor, candidate.index));
    let moved = step(vec4<f32>(load_single(piece, candidate.index)), factor, vec4<f32>(candidate.direction), vec4<f32>(s.decay), rate, s);
    store_single(piece, candidate.index, moved.x, s);
}
