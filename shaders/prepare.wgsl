// Forgets the count of the last step: one lane a tensor.

@compute @workgroup_size(256)
fn prepare(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups) * WORKGROUP + lane;
    if at < grid.count {
        atomicStore(&tensors.each[grid.first + at].selected, 0u);
    }
}
