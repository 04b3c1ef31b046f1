// Parameters, or their masters, are written as they are.

import package::access::param::store_param;
import package::tables::{Chunk, Scalars};

fn store_stepped(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>, s: Scalars, again: vec4<bool>) {
    store_param(chunk, vector, lanes, value);
}
