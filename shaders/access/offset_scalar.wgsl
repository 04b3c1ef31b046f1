// The same for kernels whose lanes reach single coordinates of a vector.

@group(1) @binding(2) var<storage, read_write> z_offset: array<f32>;

fn load_offset(vector: u32) -> vec4<f32> {
    let first = 4u * vector;
    return vec4<f32>(z_offset[first], z_offset[first + 1u], z_offset[first + 2u], z_offset[first + 3u]);
}

fn store_offset(vector: u32, value: vec4<f32>) {
    let first = 4u * vector;
    z_offset[first] = value.x;
    z_offset[first + 1u] = value.y;
    z_offset[first + 2u] = value.z;
    z_offset[first + 3u] = value.w;
}
