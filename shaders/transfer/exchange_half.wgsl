// Parameters in bf16 without masters change places with their averages in f32, without loss. An average is rounded into the place of the
// parameter; its lower half stays, below the bits of the parameter. From these and the rounded half, BACK finds its upper half again.

import package::access::{chunk::work_at, param::{load_param, store_bits}};
import package::lib::parameter_average::param_average;
import package::tables::{Invocation, LANES, grid, linear, tensors};

override BACK: bool = false;

const LOWER: vec4<u32> = vec4<u32>(0xffffu);
const SIXTEEN: vec4<u32> = vec4<u32>(16u);

@compute @workgroup_size(32)
fn exchange_half(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        var chunk = work_at(grid.first + at);
        chunk.len = select(0u, chunk.len, tensors.each[chunk.tensor].averaged > 0u);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let theta = bitcast<vec4<u32>>(load_param(chunk.param / 4u + j, lanes)) >> SIXTEEN;
            let place = chunk.offset / 4u + j;
            let mean = bitcast<vec4<u32>>(param_average[place]);
            let carry = (mean & LOWER) >> vec4<u32>(15u);   // of rounding half up
            let stored = mean >> SIXTEEN;
            if BACK {
                param_average[place] = bitcast<vec4<f32>>((((theta - carry) & LOWER) << SIXTEEN) | (mean & LOWER));
                store_bits(chunk.param / 4u + j, lanes, stored);
            } else {
                param_average[place] = bitcast<vec4<f32>>((theta << SIXTEEN) | (mean & LOWER));
                store_bits(chunk.param / 4u + j, lanes, (stored + carry) & LOWER);
            }
        }
    }
}
