// 1 / (‖d‖ + 1e-7) of every matrix, and what its step is scaled by: one workgroup a matrix, sums in a fixed tree. Where ‖d‖² is
// beyond f32's range, −1 / (2⁻⁹⁶ ‖d‖): the sign tells.

var<workgroup> beyond: u32;

// Σ over the chunks of a tensor.
fn total_of(lane: u32, norms: u32, tensor: u32) -> f32 {
    let first = norms + tensors.each[tensor].first_chunk;
    let count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    var squares = 0.0;
    for (var c = lane; c < count; c += WORKGROUP) {
        squares += near_sum(atomicLoad(&counters[first + c]));
    }
    let total = sum_over_lanes(lane, squares);
    // Another sum may follow.
    workgroupBarrier();
    return total;
}

// Σ (2⁻⁹⁶ d)² over the chunks of a tensor.
fn far_total_of(lane: u32, norms: u32, tensor: u32) -> f32 {
    let first = norms + tensors.each[tensor].first_chunk;
    let count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    var squares = 0.0;
    for (var c = lane; c < count; c += WORKGROUP) {
        squares += far_sum(atomicLoad(&counters[first + c]));
    }
    return sum_over_lanes(lane, squares);
}

@compute @workgroup_size(256)
fn measure(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let matrix = chunks[grid.first + workgroup.y];
    let direction = total_of(lane, grid.norms, matrix.tensor);
    let gradient = gradient_total(lane, matrix.tensor);
    if lane == 0u {
        beyond = select(0u, 1u, (bitcast<u32>(direction) & EXPONENT) == EXPONENT);
    }
    var inverse = 1.0 / (sqrt(direction) + 1e-7);
    if workgroupUniformLoad(&beyond) == 1u {
        inverse = -1.0 / sqrt(far_total_of(lane, grid.norms, matrix.tensor));
    }
    if lane == 0u && !skips() {
        tensors.each[matrix.tensor].inverse_norm = inverse;
        set_rate(matrix.tensor, rows[matrix.row], sqrt(gradient));
    }
}
