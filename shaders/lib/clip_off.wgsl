// g ← limit(g · grad_scale)

fn clip(g: vec4<f32>, row: Row) -> vec4<f32> {
    return limit(row.grad_scale * g, row);
}
