// Directions, not gradients: as they are.

fn clip(d: vec4<f32>, row: Row) -> vec4<f32> {
    return d;
}

fn scaled(d: vec4<f32>, row: Row) -> vec4<f32> {
    return d;
}
