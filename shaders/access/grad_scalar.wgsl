// Gradients whose number is not a multiple of four, in a caller's buffer: what follows the last coordinate is not ours to read.

@group(1) @binding(1) var<storage, read_write> grad: array<f32>;

fn load_grad(vector: u32, lanes: u32) -> vec4<f32> {
    var value = vec4<f32>();
    for (var c = 0u; c < lanes; c += 1u) {
        value[c] = grad[4u * vector + c];
    }
    return value;
}

fn load_one(at: u32) -> f32 {
    return grad[at];
}
