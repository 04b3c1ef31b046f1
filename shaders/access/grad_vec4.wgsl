// Gradients, four coordinates at a time.

@group(1) @binding(1) var<storage, read_write> grad: array<vec4<f32>>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    return grad[vector];
}

fn load_one(at: u32) -> f32 {
    return grad[at / 4u][at % 4u];
}
