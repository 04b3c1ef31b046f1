// g ← limit(g · grad_scale / loss_scale), before `guard.wgsl` has run

fn clip(g: vec4<f32>, row: Row) -> vec4<f32> {
    return limit((row.grad_scale / tensors.loss_scale) * g, row);
}
