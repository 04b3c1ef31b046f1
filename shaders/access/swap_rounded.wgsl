// Parameters in bf16 without masters change places with averages in f32, which are rounded. The lower half of an average stays, below the bits
// of the parameter. From these and the rounded half, BACK finds its upper half again.

import package::access::{average::{load_average, param_average}, bits::{load_bits, store_bits}};
import package::tables::Chunk;

override BACK: bool = false;

const LOWER: vec4<u32> = vec4<u32>(0xffffu);
const SIXTEEN: vec4<u32> = vec4<u32>(16u);

fn swap(chunk: Chunk, vector: u32, lanes: u32) {
    let place = chunk.offset / 4u + vector;
    let theta = load_bits(chunk, vector, lanes);
    let mean = bitcast<vec4<u32>>(load_average(place));
    let lower = mean & LOWER;
    let carry = lower >> vec4<u32>(15u);    // of rounding half up
    let upper = mean >> SIXTEEN;
    store_bits(chunk, vector, lanes, select((upper + carry) & LOWER, upper, vec4<bool>(BACK)));
    let kept = select(theta, (theta - carry) & LOWER, vec4<bool>(BACK));
    param_average[place] = bitcast<vec4<f32>>((kept << SIXTEEN) | lower);
}
