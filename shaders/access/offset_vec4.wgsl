// z − θ of schedule-free bases, which moves with the parameters.

@group(1) @binding(2) var<storage, read_write> z_offset: array<vec4<f32>>;

fn load_offset(vector: u32) -> vec4<f32> {
    return z_offset[vector];
}

fn store_offset(vector: u32, value: vec4<f32>) {
    z_offset[vector] = value;
}
