// θ ← θ − (decay θ + step φ ⊙ u), and the moments on the way: one pass over the tensors, one chunk a workgroup.

@compute @workgroup_size(32)
fn stream(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let row = row_of(chunk);
        let policy = context(chunk, row);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let vector = chunk.offset / 4u + j;
            let g = clip(load_grad(chunk.grad / 4u + j, lanes), row);
            let next = update(load_state(chunk, vector), g, row);
            let factor = phi(policy, next.direction * g, chunk, j, row);
            let theta = load_param(chunk.param / 4u + j, lanes);
            store_state(vector, next.state);
            let step = row.decay * theta + row.step * (factor * next.direction);
            store_param(chunk.param / 4u + j, lanes, theta - rates_of(chunk, j) * step);
        }
        conclude(chunk, lane);
    }
}
