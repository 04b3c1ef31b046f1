// Gradients whose number is not a multiple of four, in a caller's buffer: what follows the last coordinate is not ours to read.

@group(1) @binding(1) var<storage, read_write> grad: array<f32>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    let first = 4u * vector;
    var value = vec4<f32>(grad[first], 0.0, 0.0, 0.0);
    if lanes > 1u { value.y = grad[first + 1u]; }
    if lanes > 2u { value.z = grad[first + 2u]; }
    if lanes > 3u { value.w = grad[first + 3u]; }
    return value;
}

fn load_one(at: u32) -> f32 {
    return grad[at];
}
