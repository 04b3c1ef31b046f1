// 1 / (‖d‖ + 1e-7) of every matrix, and what its step is scaled by: one workgroup a matrix, sums in a fixed tree.

// Σ over the chunks of a tensor.
fn total_of(lane: u32, norms: u32, tensor: u32) -> f32 {
    let first = norms + tensors.each[tensor].first_chunk;
    let count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    var squares = 0.0;
    for (var c = lane; c < count; c += WORKGROUP) {
        squares += abs(bitcast<f32>(atomicLoad(&counters[first + c])));
    }
    let total = sum_over_lanes(lane, squares);
    // Another sum may follow.
    workgroupBarrier();
    return total;
}

@compute @workgroup_size(256)
fn measure(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let matrix = chunks[grid.first + workgroup.y];
    let direction = total_of(lane, grid.norms, matrix.tensor);
    let gradient = gradient_total(lane, matrix.tensor);
    if lane == 0u && !skips() {
        tensors.each[matrix.tensor].inverse_norm = 1.0 / (sqrt(direction) + 1e-7);
        set_rate(matrix.tensor, rows[matrix.row], sqrt(gradient));
    }
}
