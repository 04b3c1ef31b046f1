// Directions, not gradients: as they are.

fn clip(d: vec4<f32>, row: Row) -> vec4<f32> {
    return d;
}

// Nothing scales them, so nothing overflows by that.
fn scaled(d: vec4<f32>, row: Row) -> vec4<f32> {
    return vec4<f32>();
}
