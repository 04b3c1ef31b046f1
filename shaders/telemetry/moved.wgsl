// Σ (θ − θ')² of every chunk: how far the step moved it from the copy that was made before.

import package::access::param::load_param;
import package::lib::{observations::{observations, snapshot}, sum_few::sum_over_lanes};
import package::tables::{CHUNK, EACH, Invocation, LANES, chunks, grid, linear, tensors};

@compute @workgroup_size(32)
fn moved(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var squares = vec4<f32>();
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let difference = load_param(chunk.param / 4u + j, lanes) - snapshot[chunk.offset / 4u + j];
            let step = select(vec4<f32>(), difference, inside);
            squares += step * step;
        }
    }
    let total = sum_over_lanes(lane, (squares.x + squares.y) + (squares.z + squares.w));
    if lane == 0u && at < grid.count {
        let chunk = chunks[grid.first + at];
        let place = 4u * (tensors.each[chunk.tensor].first_chunk + chunk.index / CHUNK);
        atomicStore(&observations[place + 1u], bitcast<u32>(total));
    }
}
