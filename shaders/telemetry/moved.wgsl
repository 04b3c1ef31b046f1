// Σ (θ − θ')² of every chunk: how far the step moved it from the copy that was made before.

import package::access::param::load_param;
import package::lib::{observations::{observations, snapshot}, sum_chunk::{Sum, add_vector, place_of, range_of, sum_over_chunk}};
import package::tables::{EACH, Invocation, LANES, chunks, grid, linear};

@compute @workgroup_size(32)
fn moved(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var sum = Sum();
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let range = range_of(chunk, lane);
        for (var j = range.x; j < range.y; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let difference = load_param(chunk.param / 4u + j, lanes) - snapshot[chunk.offset / 4u + j];
            let step = select(vec4<f32>(), difference, inside);
            sum = add_vector(sum, j, step * step);
        }
    }
    let of_chunk = sum_over_chunk(lane, sum);
    if lane == 0u && at < grid.count {
        let place = 4u * place_of(chunks[grid.first + at]);
        atomicStore(&observations[place + 1u], bitcast<u32>(of_chunk));
    }
}
