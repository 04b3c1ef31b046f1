// For each output: v ← β2 v + (1−β2) mean of O² ;  q = 1 / (√v + ε) ;  rate = q scale ‖O‖ / (‖q O‖ + ε)

import package::lib::{lines::{line_count, load_line, load_sum, store_line}, skip::skips, sum::sum_over_lanes};
import package::tables::{Chunk, Scalars, WORKGROUP, tensors};

@group(1) @binding(3) var<storage, read_write> second_momentum_buffer: array<f32>;

fn move_lines(lane: u32, whole: Chunk, s: Scalars) {
    let lines = line_count(whole);
    let len = whole.len / lines;
    let first = tensors.each[whole.tensor].lines;
    var before = 0.0;
    var after = 0.0;
    for (var i = lane; i < lines; i += WORKGROUP) {
        let squares = load_sum(first, lines, len, i);
        let mean = squares / f32(len);
        let v = s.beta3 * second_momentum_buffer[whole.lines + i] + s.one_minus_beta3 * mean;
        if !skips() { second_momentum_buffer[whole.lines + i] = v; }
        let inverse = 1.0 / (sqrt(v) + s.eps);
        store_line(first + i, inverse);
        before += squares;
        after += squares * inverse * inverse;
    }
    let norm = sqrt(sum_over_lanes(lane, before));
    workgroupBarrier();
    let moved = sqrt(sum_over_lanes(lane, after));
    let rate = tensors.each[whole.tensor].scale * norm / (moved + s.eps);
    for (var i = lane; i < lines; i += WORKGROUP) {
        store_line(first + i, rate * load_line(first + i));
    }
}
