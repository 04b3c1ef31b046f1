// Updates the state, and passes u = direction, s = u ⊙ g and φ = phi(s) to a sink: a step of the parameters, or, before a matrix is
// orthogonalized, the direction and a mask. One pass over the tensors, one chunk per workgroup.

import package::{next::next_of, policy::{factors, phi}, selection::{begin_selection, end_selection, selects}, sink::{begin_sink, emit, end_sink}};
import package::state::store_state;
import package::lib::{coupled::coupled, gradients::read_grad, skip::{chunk_at, scalars_of}};
import package::tables::{Invocation, LANES, grid, linear};

@compute @workgroup_size(32)
fn stream(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        let own = factors(chunk, s);
        begin_selection(chunk);
        begin_sink(chunk, lane);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let vector = chunk.offset / 4u + j;
            let g = read_grad(chunk, j, s);
            let next = next_of(chunk, vector, coupled(g, chunk, j, s), s);
            let score = next.direction * g;
            let selected = selects(score, chunk, j);
            emit(chunk, j, s, phi(own, selected, score), next.direction, selected, vec4<bool>(false));
            store_state(chunk, vector, next.state);
        }
        end_selection(chunk, lane);
        end_sink(chunk, lane);
    }
}
