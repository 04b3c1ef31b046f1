// X ← d / (‖d‖ + 1e-7), transposed if it is tall, padded with zeros: a vector of four columns an invocation.

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> directions: array<f32>;

fn direction(matrix: Chunk, place: Place, column: u32) -> f32 {
    if place.row >= grid.m || column >= grid.n {
        return 0.0;
    }
    return directions[matrix.offset + stored(matrix, place.row, column)];
}

@compute @workgroup_size(64)
fn enter(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let matrix = chunks[grid.first + workgroup.y];
    let place = place_of(matrix, (workgroup.z * workgroups.x + workgroup.x) * 64u + lane);
    if place.inside {
        let c = 4u * place.vector;
        let d = vec4<f32>(
            direction(matrix, place, c),
            direction(matrix, place, c + 1u),
            direction(matrix, place, c + 2u),
            direction(matrix, place, c + 3u),
        );
        let at = matrix.part * grid.left_slot + place.row * grid.left_stride + place.vector;
        let inverse = tensors.each[matrix.tensor].inverse_norm;
        left[at] = select(d, FAR * d, inverse < 0.0) * abs(inverse);
    }
}
