// Parameters, or their masters, are written as they are.

import package::access::param::{load_param, store_param};
import package::tables::{Chunk, Scalars};

fn store_stepped(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>, s: Scalars, again: vec4<bool>) {
    store_param(chunk, vector, lanes, value);
}

// Puts an average in the place of parameters, and returns what is to lie in the place of the average.
fn exchanged(chunk: Chunk, vector: u32, lanes: u32, mean: vec4<f32>) -> vec4<f32> {
    let theta = load_param(chunk, vector, lanes);
    store_param(chunk, vector, lanes, mean);
    return theta;
}
