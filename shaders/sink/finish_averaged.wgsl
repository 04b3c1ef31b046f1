// The step of single coordinates that the stream left as they were, with their offsets. Coordinates are reached one at a time, because
// their neighbors in a vector may be another lane's.

import package::{access::{offset::z_offset, param::param}, policy::{factors, phi}};
import package::lib::{averaged::averaged, candidates::Candidate, rates::rate_of, step::taken_of};
import package::tables::{Chunk, Scalars};

fn finish(piece: Chunk, s: Scalars, candidate: Candidate, selected: bool) {
    let factor = phi(factors(piece, s), vec4<bool>(selected), vec4<f32>());
    let inside = candidate.index - piece.index;
    let rate = vec4<f32>(rate_of(piece.tensor, candidate.index));
    let theta = vec4<f32>(param[piece.param + inside]);
    let taken = taken_of(theta, factor, vec4<f32>(candidate.direction), vec4<f32>(s.decay), rate, s);
    let next = averaged(theta, vec4<f32>(z_offset[piece.offset + inside]), taken, s);
    param[piece.param + inside] = next.param.x;
    z_offset[piece.offset + inside] = next.offset.x;
}
