// a ← a + ‖g‖² ;  rate = 1 / √(a₀ + a)

import package::lib::largest::{LARGEST, norm_within};
import package::matrix::totals::total_of;
import package::tables::{Scalars, grid, tensors};

// ‖g‖.
fn norms_of(lane: u32, tensor: u32) -> vec2<f32> {
    return vec2<f32>(sqrt(total_of(lane, grid.norms, tensor, false)), 0.0);
}

fn set_rate(tensor: u32, s: Scalars, norms: vec2<f32>) {
    let g = norm_within(norms.x);
    // The sum stays finite: it is at most LARGEST².
    let a = min(tensors.each[tensor].accumulator, LARGEST * LARGEST - g * g) + g * g;
    tensors.each[tensor].accumulator = a;
    tensors.each[tensor].rate = 1.0 / sqrt(s.accumulator_init + a);
}
