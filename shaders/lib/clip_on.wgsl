// g ← g · min(1, max_grad_norm / (‖g‖ + 1e-6)), the factor from `clip.wgsl`

fn clip(g: vec4<f32>) -> vec4<f32> {
    return tensors.grad_scale * g;
}
