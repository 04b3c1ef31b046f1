// g ← limit(g · grad_scale)

fn clip(g: vec4<f32>, row: Row) -> vec4<f32> {
    return limit(row.grad_scale * g, row);
}

// Before anything is limited or clipped.
fn scaled(g: vec4<f32>, row: Row) -> vec4<f32> {
    return row.grad_scale * g;
}
