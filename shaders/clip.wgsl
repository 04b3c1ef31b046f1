// grad_norm = √Σ g² over all chunks ;  grad_scale = min(1, max_grad_norm / (grad_norm + 1e-6)), 0 if that norm is not finite
// One workgroup. Leaves the sums cleared, for tensors that the next step leaves out.

@compute @workgroup_size(256)
fn clip_factor(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    var squares = 0.0;
    // Not the uniform itself: some drivers compile a kernel anew for each value that bounds a loop.
    let end = select(0u, grid.count, lane < WORKGROUP);
    for (var c = lane; c < end; c += WORKGROUP) {
        squares += bitcast<f32>(atomicLoad(&counters[grid.norms + c]));
        atomicStore(&counters[grid.norms + c], 0u);
    }
    let total = sum_over_lanes(lane, squares);
    if lane == 0u {
        let found = sqrt(total);
        // Bits, because a compiler may assume that infinity and NaN do not occur.
        let finite = (bitcast<u32>(total) & 0x7f800000u) != 0x7f800000u;
        tensors.grad_norm = found;
        tensors.grad_scale = select(0.0, min(1.0, rows[0].max_grad_norm / (found + 1e-6)), finite);
    }
}
