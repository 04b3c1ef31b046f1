// Parameters in bf16 without masters.

import package::access::{bits::load_bits, half::widen};
import package::tables::Chunk;

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    return widen(load_bits(chunk, vector, lanes));
}
