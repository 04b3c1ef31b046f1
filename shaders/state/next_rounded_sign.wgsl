// The direction of a vector of coordinates, a sign that follows from the state before the step, and the new state as one byte holds it.

import package::{base::update, state::{Update, load_state, rounded_state}};
import package::tables::{Chunk, Scalars};

fn next_of(chunk: Chunk, vector: u32, g: vec4<f32>, s: Scalars) -> Update {
    let next = update(load_state(chunk, vector), g, s);
    return Update(next.direction, rounded_state(next.state, chunk, vector, s));
}
