// The direction of a vector of coordinates, and its new state in f32.

import package::{base::update, state::{Update, load_state}};
import package::tables::{Chunk, Scalars};

fn next_of(chunk: Chunk, vector: u32, g: vec4<f32>, s: Scalars) -> Update {
    return update(load_state(chunk, vector), g, s);
}
