// Σ u² and Σ θ² of every chunk. Does not change the state.

import package::{access::param::load_param, base::update, state::load_state};
import package::lib::{far::PRESENT, gradients::read_grad, skip::{chunk_at, scalars_of}, sum_few::sum_over_lanes};
import package::tables::{CHUNK, EACH, Invocation, LANES, chunks, counters, grid, linear, tensors};

fn total(squares: vec4<f32>) -> f32 {
    return (squares.x + squares.y) + (squares.z + squares.w);
}

@compute @workgroup_size(32)
fn update_sums(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var updates = vec4<f32>();
    var params = vec4<f32>();
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let direction = update(load_state(chunk, chunk.offset / 4u + j), read_grad(chunk, j, s), s).direction;
            let u = select(vec4<f32>(), direction, inside);
            let theta = select(vec4<f32>(), load_param(chunk.param / 4u + j, lanes), inside);
            updates += u * u;
            params += theta * theta;
        }
    }
    let squared_update = sum_over_lanes(lane, total(updates));
    workgroupBarrier();
    let squared_param = sum_over_lanes(lane, total(params));
    if lane == 0u && at < grid.count {
        let chunk = chunks[grid.first + at];
        let place = tensors.each[chunk.tensor].first_chunk + chunk.index / CHUNK;
        atomicStore(&counters[grid.norms + place], bitcast<u32>(squared_update) | PRESENT);
        atomicStore(&counters[grid.gradient_norms + place], bitcast<u32>(squared_param) | PRESENT);
    }
}
