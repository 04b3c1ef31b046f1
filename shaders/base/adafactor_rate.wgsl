// rate = max(ε2, RMS θ) / max(1, RMS u / clip_threshold) ;  without scale_parameter: 1 / max(1, RMS u / clip_threshold)

import package::matrix::totals::total_of;
import package::tables::{Scalars, grid, tensors};

// ‖u‖ and ‖θ‖.
fn norms_of(lane: u32, tensor: u32) -> vec2<f32> {
    let update = total_of(lane, grid.norms, tensor, false);
    return sqrt(vec2<f32>(update, total_of(lane, grid.gradient_norms, tensor, false)));
}

fn set_rate(tensor: u32, s: Scalars, norms: vec2<f32>) {
    let rms = norms / sqrt(f32(tensors.each[tensor].numel));
    let scale = select(1.0, max(s.min_step, rms.y), s.weight2 == 1.0);
    tensors.each[tensor].rate = scale / max(1.0, rms.x / s.clip);
}
