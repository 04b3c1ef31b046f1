// g ← limit(g · grad_scale / loss_scale), before `guard.wgsl` has run

fn clip(g: vec4<f32>, row: Row) -> vec4<f32> {
    return limit(scaled(g, row), row);
}

// Before anything is limited or clipped.
fn scaled(g: vec4<f32>, row: Row) -> vec4<f32> {
    return (row.grad_scale / tensors.loss_scale) * g;
}
