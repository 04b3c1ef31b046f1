// The direction of a vector of coordinates, and its new state as one byte holds it. The direction follows from the rounded state, so that
// later kernels find the same.

import package::{base::{direction_of, update}, state::{Update, load_state, rounded_state}};
import package::tables::{Chunk, Scalars};

fn next_of(chunk: Chunk, vector: u32, g: vec4<f32>, s: Scalars) -> Update {
    let state = rounded_state(update(load_state(chunk, vector), g, s).state, chunk, vector, s);
    return Update(direction_of(state, g, s), state);
}
