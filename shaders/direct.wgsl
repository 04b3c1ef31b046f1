// The direction of a matrix base, before it is orthogonalised, the momentum on the way, and the mask of the update policy: one
// chunk a workgroup.

@compute @workgroup_size(32)
fn direct(
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
            store_state(vector, next.state);
            directions[vector] = next.direction;
            mark(policy, next.direction * g, chunk, j);
        }
        conclude(chunk, lane);
    }
}
