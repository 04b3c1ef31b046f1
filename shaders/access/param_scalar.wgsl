// Parameters whose number is not a multiple of four, in a caller's buffer: what follows the last coordinate is not ours to read or write.

@group(1) @binding(0) var<storage, read_write> param: array<f32>;

fn load_param(vector: u32, lanes: u32) -> vec4<f32> {
    var value = vec4<f32>();
    for (var c = 0u; c < lanes; c += 1u) {
        value[c] = param[4u * vector + c];
    }
    return value;
}

fn store_param(vector: u32, lanes: u32, value: vec4<f32>) {
    var out = value;
    for (var c = 0u; c < lanes; c += 1u) {
        param[4u * vector + c] = out[c];
    }
}
