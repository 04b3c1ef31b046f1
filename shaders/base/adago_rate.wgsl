// n = min(‖g‖, clip) ;  a ← a + n² ;  rate = max(min_step, lr n / √(a₀ + a))

fn gradient_total(lane: u32, tensor: u32) -> f32 {
    return total_of(lane, grid.gradient_norms, tensor);
}

fn set_rate(tensor: u32, row: Row, norm: f32) {
    let n = min(clip(vec4<f32>(norm)).x, row.clip);
    let a = tensors.each[tensor].accumulator + n * n;
    tensors.each[tensor].accumulator = a;
    tensors.each[tensor].rate = max(row.min_step, row.lr * n / sqrt(row.accumulator_init + a));
}
