// θ' ← the master θ in two bytes: one chunk a workgroup. Nothing where the step is skipped. The masters hold their values from here on.

@compute @workgroup_size(32)
fn round_masters(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            store_half(chunk.grad / 4u + j, lanes, load_param(chunk.param / 4u + j, lanes));
        }
        if chunk.index == 0u && lane == 0u {
            tensors.each[chunk.tensor].mastered = 1u;
        }
    }
}
