// Parameters, four coordinates at a time.

@group(1) @binding(0) var<storage, read_write> param: array<vec4<f32>>;

fn load_param(vector: u32, lanes: u32) -> vec4<f32> {
    return param[vector];
}

fn store_param(vector: u32, lanes: u32, value: vec4<f32>) {
    param[vector] = value;
}
