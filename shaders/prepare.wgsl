// Forgets what selection found in the last step: one lane a tensor.

@compute @workgroup_size(256)
fn prepare(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups) * WORKGROUP + lane;
    if at < grid.count {
        let tensor = grid.first + at;
        tensors.selections[tensor].open = 1u;
        tensors.selections[tensor].threshold = 0u;
        tensors.selections[tensor].tie_limit = 0u;
        tensors.selections[tensor].remaining = tensors.selections[tensor].k;
        atomicStore(&tensors.selections[tensor].selected, 0u);
    }
}
