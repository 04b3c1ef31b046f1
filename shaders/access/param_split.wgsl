// Masters in two parts: the parameters in bf16, and the lower halves.

import package::access::{bits::{load_bits, store_bits}, low::{load_low, store_low}};
import package::lib::split::{below_of, half_of, joined};
import package::tables::Chunk;

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    return joined(load_bits(chunk, vector, lanes), load_low(chunk.offset / 4u + vector));
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    store_bits(chunk, vector, lanes, half_of(value));
    store_low(chunk.offset / 4u + vector, below_of(value));
}
