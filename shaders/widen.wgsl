// The master θ ← θ' of two bytes, unless it holds its values already: one chunk a workgroup.

@compute @workgroup_size(32)
fn widen_masters(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let end = select(0u, chunk.len, tensors.each[chunk.tensor].mastered == 0u);
        for (var j = lane; 4u * j < end; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            store_param(chunk.param / 4u + j, lanes, load_grad(chunk.grad / 4u + j, lanes));
        }
    }
}
