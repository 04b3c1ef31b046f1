// Σ u² and Σ θ² of every chunk. Does not change the state.

import package::{access::param::load_param, base::update, state::load_state};
import package::lib::{far::PRESENT, gradients::read_grad, skip::{chunk_at, scalars_of}};
import package::lib::{sum_chunk::{end_of_vectors, ends_share, first_vector, sum_over_chunk}, sum_few::total};
import package::tables::{CHUNK, EACH, Invocation, LANES, chunks, counters, grid, linear, tensors};

@compute @workgroup_size(32)
fn update_sums(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    var update_sum = 0.0;
    var param_sum = 0.0;
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        var updates = vec4<f32>();
        var params = vec4<f32>();
        let end = end_of_vectors(chunk, lane);
        for (var j = first_vector(lane); j < end; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let direction = update(load_state(chunk, chunk.offset / 4u + j), read_grad(chunk, j, s), s).direction;
            let u = select(vec4<f32>(), direction, inside);
            let theta = select(vec4<f32>(), load_param(chunk.param / 4u + j, lanes), inside);
            updates += u * u;
            params += theta * theta;
            if ends_share(j) {
                update_sum += total(updates);
                updates = vec4<f32>();
                param_sum += total(params);
                params = vec4<f32>();
            }
        }
        update_sum += total(updates);
        param_sum += total(params);
    }
    let squared_update = sum_over_chunk(lane, update_sum);
    workgroupBarrier();
    let squared_param = sum_over_chunk(lane, param_sum);
    if lane == 0u && at < grid.count {
        let chunk = chunks[grid.first + at];
        let place = tensors.each[chunk.tensor].first_chunk + chunk.index / CHUNK;
        atomicStore(&counters[grid.norms + place], bitcast<u32>(squared_update) | PRESENT);
        atomicStore(&counters[grid.gradient_norms + place], bitcast<u32>(squared_param) | PRESENT);
    }
}
