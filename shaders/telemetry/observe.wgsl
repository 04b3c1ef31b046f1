// What a step is about to do, of every chunk: Σ g² of the finite gradients, how many are not finite, how many scores are positive, and how
// long the step would be with φ = 1; and a copy of the parameters. Reads the state and leaves it as it is.

import package::{access::grad::load_grad, access::param::load_param, next::next_of};
import package::lib::{coupled::coupled, flags::ones, gradients::{clip, scaled}, order::{ZERO_KEY, key}, rates::rates_of, skip::scalars_of};
import package::lib::{lengths::{LENGTHS, Lengths, add_step, lengths_over_chunk}, observations::{OF_CHUNK, PLAIN, SUMS, observations, snapshot}};
import package::lib::sum_chunk::{Sum, add_vector, place_of, range_of, sum_over_chunk};
import package::tables::{EACH, Invocation, LANES, chunks, grid, linear};

var<workgroup> positive: atomic<u32>;
var<workgroup> broken: atomic<u32>;

@compute @workgroup_size(32)
fn observe(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&positive, 0u);
        atomicStore(&broken, 0u);
    }
    workgroupBarrier();
    let at = linear(in);
    var sum = Sum();
    var lengths = Lengths();
    if at < grid.count {
        // Also where the step is skipped.
        let chunk = chunks[grid.first + at];
        let s = scalars_of(chunk);
        var agree = 0u;
        var lost = 0u;
        let range = range_of(chunk, lane);
        for (var j = range.x; j < range.y; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let vector = chunk.offset / 4u + j;
            let inside = EACH < vec4<u32>(lanes);
            let read = load_grad(chunk.grad / 4u + j, lanes);
            let finite = (bitcast<vec4<u32>>(read) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
            let raw = scaled(select(vec4<f32>(), read, finite & inside), s);
            sum = add_vector(sum, j, raw * raw);
            let g = clip(read, s);
            let direction = next_of(chunk, vector, coupled(g, chunk, j, s), s).direction;
            let score = direction * g;
            if LENGTHS {
                let delta = rates_of(chunk, j) * s.step * direction;
                lengths = add_step(lengths, j, select(vec4<f32>(), delta, inside), select(vec4<f32>(), g, inside));
            }
            agree += ones((key(score) > vec4<u32>(ZERO_KEY)) & inside);
            lost += ones(!finite & inside);
            snapshot[vector] = load_param(chunk, j, lanes);
        }
        atomicAdd(&positive, agree);
        atomicAdd(&broken, lost);
    }
    let of_chunk = sum_over_chunk(lane, sum);
    let length = lengths_over_chunk(lane, lengths);
    if lane == 0u && at < grid.count {
        let place = OF_CHUNK * place_of(chunks[grid.first + at]);
        atomicStore(&observations[place], bitcast<u32>(of_chunk));
        atomicStore(&observations[place + PLAIN], bitcast<u32>(length.x));
        atomicStore(&observations[place + PLAIN + 1u], bitcast<u32>(length.y));
        atomicStore(&observations[place + PLAIN + 2u], bitcast<u32>(length.z));
        atomicStore(&observations[place + SUMS], atomicLoad(&positive));
        atomicStore(&observations[place + SUMS + 1u], atomicLoad(&broken));
    }
}
