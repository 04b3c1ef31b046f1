// n = min(‖g‖, clip) ;  a ← a + n² ;  rate = max(min_step, lr n / √(a₀ + a))

fn gradient_total(lane: u32, tensor: u32) -> f32 {
    return total_of(lane, grid.gradient_norms, tensor);
}

fn set_rate(tensor: u32, row: Row, norm: f32) {
    // Bits, because a compiler may assume that infinity and NaN do not occur: they count as `clip`, and do not stay.
    let finite = (bitcast<u32>(norm) & 0x7f800000u) != 0x7f800000u;
    let n = min(select(3e38, norm, finite), row.clip);
    let a = tensors.each[tensor].accumulator + n * n;
    tensors.each[tensor].accumulator = a;
    tensors.each[tensor].rate = max(row.min_step, row.lr * n / sqrt(row.accumulator_init + a));
}
