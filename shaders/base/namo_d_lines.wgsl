// n ← μ₂ n + (1−μ₂) ‖g‖² ;  e = ‖d‖ / (√n + ε), within [c mean e, mean e / c] ;  r = lr √(1−μ₂^t) / (1−μ^t) e, for each input
// rate = min(r scale, max_step) ;  rate of the decay = min(r, max_step)

import package::lib::{lines::{blocks_of, line_count, load_line, load_sum, store_line}, skip::skips, sum::sum_over_lanes};
import package::tables::{Chunk, Scalars, WORKGROUP, tensors};

@group(1) @binding(3) var<storage, read_write> input_norm_avg: array<f32>;

fn move_lines(lane: u32, whole: Chunk, s: Scalars) {
    let lines = line_count(whole);
    let len = whole.len / lines;
    let first = tensors.each[whole.tensor].lines;
    let second = first + lines * blocks_of(len);
    var sum = 0.0;
    for (var j = lane; j < lines; j += WORKGROUP) {
        let n = s.beta3 * input_norm_avg[whole.lines + j] + s.one_minus_beta3 * load_sum(first, lines, len, j);
        if !skips() { input_norm_avg[whole.lines + j] = n; }
        let e = sqrt(load_sum(second, lines, len, j)) / (sqrt(n) + s.eps);
        store_line(first + j, e);
        sum += e / f32(lines);
    }
    let mean = sum_over_lanes(lane, sum);
    // There are no bounds if the mean is 0, infinite or NaN.
    let bounded = mean > 0.0 && mean < 3e38;
    for (var j = lane; j < lines; j += WORKGROUP) {
        let e = load_line(first + j);
        let r = s.lr * s.weight1 * select(e, clamp(e, s.clip * mean, mean / s.clip), bounded);
        store_line(first + j, min(r * tensors.each[whole.tensor].scale, s.max_step));
        store_line(first + lines + j, min(r, s.max_step));
    }
}
