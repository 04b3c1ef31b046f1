// n = min(‖g‖, clip) ;  a ← a + n² ;  rate = max(min_step, lr n / √(a₀ + a))

import package::matrix::totals::total_of;
import package::tables::{Scalars, grid, tensors};

fn gradient_total(lane: u32, tensor: u32) -> f32 {
    return total_of(lane, grid.gradient_norms, tensor, false);
}

fn set_rate(tensor: u32, s: Scalars, norm: f32, direction: f32) {
    // Bits, because a compiler may assume that infinity and NaN do not occur: they count as `clip`, and do not stay.
    let finite = (bitcast<u32>(norm) & 0x7f800000u) != 0x7f800000u;
    let n = min(select(3e38, norm, finite), s.clip);
    let a = tensors.each[tensor].accumulator + n * n;
    tensors.each[tensor].accumulator = a;
    tensors.each[tensor].rate = max(s.min_step, s.lr * n / sqrt(s.accumulator_init + a));
}
