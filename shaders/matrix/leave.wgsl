// O ← rate · X, as the tensor lies: a vector of four columns of X an invocation.

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> orthogonal: array<f32>;

@compute @workgroup_size(64)
fn leave(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let matrix = chunks[grid.first + workgroup.y];
    let place = place_of(matrix, (workgroup.z * workgroups.x + workgroup.x) * 64u + lane);
    if place.inside && place.row < grid.m {
        let at = matrix.part * grid.left_slot + place.row * grid.left_stride + place.vector;
        let x = tensors.each[matrix.tensor].rate * left[at];
        for (var e = 0u; e < min(4u, grid.n - 4u * place.vector); e += 1u) {
            orthogonal[matrix.offset + stored(matrix, place.row, 4u * place.vector + e)] = x[e];
        }
    }
}
