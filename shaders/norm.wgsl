// Σ g² of every chunk, for the norm of all gradients.

@compute @workgroup_size(256)
fn norm(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    var squares = vec4<f32>();
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        for (var j = lane; 4u * j < chunk.len; j += WORKGROUP) {
            let lanes = min(4u, chunk.len - 4u * j);
            let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(lanes);
            let g = select(vec4<f32>(), load_grad(chunk.grad / 4u + j, lanes), inside);
            squares += g * g;
        }
    }
    let total = sum_over_lanes(lane, (squares.x + squares.y) + (squares.z + squares.w));
    if lane == 0u && at < grid.count {
        let chunk = chunks[grid.first + at];
        let place = tensors.each[chunk.tensor].first_chunk + chunk.index / CHUNK;
        atomicStore(&counters[grid.norms + place], bitcast<u32>(total));
    }
}
