// How far the step moved every chunk from the copy that was made before, and the step that it took, without the decay.

import package::access::{grad::load_grad, param::load_param};
import package::lib::{gradients::clip, lines::decay_of, rates::rates_of, skip::scalars_of};
import package::lib::{lengths::{LENGTHS, Lengths, add_step, lengths_over_chunk}, observations::{OF_CHUNK, SCALED, observations, snapshot}};
import package::lib::sum_chunk::{Sum, add_vector, place_of, range_of, sum_over_chunk};
import package::tables::{EACH, Invocation, LANES, chunks, grid, linear};

@compute @workgroup_size(32)
fn moved(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var sum = Sum();
    var lengths = Lengths();
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let s = scalars_of(chunk);
        let range = range_of(chunk, lane);
        for (var j = range.x; j < range.y; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let before = snapshot[chunk.offset / 4u + j];
            let change = select(vec4<f32>(), before - load_param(chunk, j, lanes), inside);
            sum = add_vector(sum, j, change * change);
            if LENGTHS {
                let decay = rates_of(chunk, j) * decay_of(chunk, j, s) * before;
                let g = clip(load_grad(chunk.grad / 4u + j, lanes), s);
                lengths = add_step(lengths, j, select(vec4<f32>(), change - decay, inside), select(vec4<f32>(), g, inside));
            }
        }
    }
    let of_chunk = sum_over_chunk(lane, sum);
    let length = lengths_over_chunk(lane, lengths);
    if lane == 0u && at < grid.count {
        let place = OF_CHUNK * place_of(chunks[grid.first + at]);
        atomicStore(&observations[place + 1u], bitcast<u32>(of_chunk));
        atomicStore(&observations[place + SCALED], bitcast<u32>(length.x));
        atomicStore(&observations[place + SCALED + 1u], bitcast<u32>(length.y));
        atomicStore(&observations[place + SCALED + 2u], bitcast<u32>(length.z));
    }
}
