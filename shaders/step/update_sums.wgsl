// Σ u² and Σ θ² of every chunk. Does not change the state.

import package::{access::param::load_param, next::next_of};
import package::lib::{far::PRESENT, gradients::read_grad, skip::{chunk_at, scalars_of}};
import package::lib::sum_chunk::{Sum, add_vector, place_of, range_of, sum_over_chunk};
import package::tables::{EACH, Invocation, LANES, chunks, counters, grid, linear};

@compute @workgroup_size(32)
fn update_sums(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var update_sum = Sum();
    var param_sum = Sum();
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        let range = range_of(chunk, lane);
        for (var j = range.x; j < range.y; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let direction = next_of(chunk, chunk.offset / 4u + j, read_grad(chunk, j, s), s).direction;
            let u = select(vec4<f32>(), direction, inside);
            let theta = select(vec4<f32>(), load_param(chunk, j, lanes), inside);
            update_sum = add_vector(update_sum, j, u * u);
            param_sum = add_vector(param_sum, j, theta * theta);
        }
    }
    let squared_update = sum_over_chunk(lane, update_sum);
    workgroupBarrier();
    let squared_param = sum_over_chunk(lane, param_sum);
    if lane == 0u && at < grid.count {
        let place = place_of(chunks[grid.first + at]);
        atomicStore(&counters[grid.norms + place], bitcast<u32>(squared_update) | PRESENT);
        atomicStore(&counters[grid.gradient_norms + place], bitcast<u32>(squared_param) | PRESENT);
    }
}
