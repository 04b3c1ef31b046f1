// n ← μ₂ n + (1−μ₂) ‖g‖² ;  r = lr √(1−μ₂^t) / (1−μ^t) ‖d‖ / (√n + ε) ;  rate = min(r scale, max_step), and of the decay min(r, max_step)

import package::lib::largest::norm_within;
import package::matrix::totals::total_of;
import package::tables::{Scalars, grid, tensors};

fn gradient_total(lane: u32, tensor: u32) -> f32 {
    return total_of(lane, grid.gradient_norms, tensor, false);
}

fn set_rate(tensor: u32, s: Scalars, gradient: f32, direction: f32) {
    let g = norm_within(gradient);
    let n = s.beta3 * tensors.each[tensor].accumulator + s.one_minus_beta3 * (g * g);
    tensors.each[tensor].accumulator = n;
    let r = s.lr * s.weight1 * (norm_within(direction) / (sqrt(n) + s.eps));
    tensors.each[tensor].rate = min(r * tensors.each[tensor].scale, s.max_step);
    tensors.each[tensor].decay = min(r, s.max_step);
}
