// What becomes of a step, from the sums of its gradients' chunks: their norm and the factor that clips it,
//     norm_factor = min(1, max_grad_norm / (grad_norm + 1e-6)), 0 if that norm is not finite,
// whether the step is skipped, because a gradient is not finite, and the scale of the next loss. One workgroup. Leaves the sums cleared,
// for tensors that the next step leaves out.

import package::lib::{far::{EXPONENT, four_words, near_sum}, sum::sum_over_lanes};
import package::tables::{Invocation, WORKGROUP, chunks, counters, grid, opaque, scalars, tensors};

const NOT_FINITE: u32 = 0xffffffffu;
const NONE: u32 = 0xffffffffu;

var<workgroup> broken: atomic<u32>;     // the first tensor with a gradient that is not finite

// Bits, because a compiler may assume that infinity and NaN do not occur.
fn is_finite(x: f32) -> bool {
    return (bitcast<u32>(x) & EXPONENT) != EXPONENT;
}

@compute @workgroup_size(256)
fn guard(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u { atomicStore(&broken, NONE); }
    workgroupBarrier();
    var squares = 0.0;
    let end = opaque(grid.count, lane < WORKGROUP);
    for (var c = lane; c < end; c += 4u * WORKGROUP) {
        let loaded = four_words(grid.norms, c, end);
        for (var i = 0u; i < 4u; i += 1u) {
            if loaded[i] == NOT_FINITE {
                atomicMin(&broken, chunks[c + i * WORKGROUP].tensor);
            } else {
                squares += near_sum(loaded[i]);
            }
        }
    }
    let total = sum_over_lanes(lane, squares);
    let found = atomicLoad(&broken);
    let s = scalars[0];
    let skip = found != NONE && s.skips == 1u;
    if lane == 0u {
        let norm = bitcast<f32>(select(bitcast<u32>(sqrt(total)), EXPONENT, found != NONE));
        let clipped = select(0.0, min(1.0, s.max_grad_norm / (norm + 1e-6)), is_finite(total) && found == NONE);
        tensors.grad_norm = norm;
        tensors.norm_factor = select(1.0, clipped, s.max_grad_norm > 0.0);
        tensors.broken = found;
        tensors.skip = select(0u, 1u, skip);
        tensors.skipped += select(0u, 1u, skip && tensors.skipped < NONE);

        let scale = tensors.loss_scale;
        tensors.unscale = 1.0 / scale;
        if s.growth_interval > 0u {
            let since = tensors.grown + 1u;
            // Not beyond 2¹²⁶, whose inverse is the smallest that f32 holds.
            let grows = since >= s.growth_interval && scale * s.growth <= 0x1p126f;
            let kept = select(scale, scale * s.growth, grows);
            // Not down to 0, which nothing could be divided by.
            tensors.loss_scale = select(kept, max(scale * s.backoff, min(scale, 1e-30)), skip);
            tensors.grown = select(since, 0u, skip || since >= s.growth_interval);
        }
    }
    if skip {
        for (var t = lane; t < arrayLength(&tensors.each); t += WORKGROUP) {
            if atomicLoad(&counters[grid.norms + tensors.each[t].first_chunk]) != 0u {
                tensors.each[t].skipped += select(0u, 1u, tensors.each[t].skipped < NONE);
            }
        }
    }
    storageBarrier();
    for (var c = lane; c < end; c += WORKGROUP) {
        atomicStore(&counters[grid.norms + c], 0u);
    }
}
