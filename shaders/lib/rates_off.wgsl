// One learning rate for all components.

fn rate_of(tensor: u32, index: u32) -> f32 {
    return 1.0;
}

fn rates_of(chunk: Chunk, vector: u32) -> vec4<f32> {
    return vec4<f32>(1.0);
}
