// g ← min(max(g, −max_grad_value), max_grad_value)

fn limit(g: vec4<f32>, row: Row) -> vec4<f32> {
    return clamp(g, vec4<f32>(-row.max_grad_value), vec4<f32>(row.max_grad_value));
}
