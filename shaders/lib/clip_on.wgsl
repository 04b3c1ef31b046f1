// g ← limit(g · grad_scale / loss_scale) · min(1, max_grad_norm / (‖g‖ + 1e-6)), the factors from `guard.wgsl`

fn clip(g: vec4<f32>, row: Row) -> vec4<f32> {
    return tensors.norm_factor * limit((row.grad_scale * tensors.unscale) * g, row);
}

// Before anything is limited or clipped.
fn scaled(g: vec4<f32>, row: Row) -> vec4<f32> {
    return (row.grad_scale * tensors.unscale) * g;
}
