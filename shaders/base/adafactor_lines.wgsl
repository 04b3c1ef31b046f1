// R ← β R + (1−β) (mean of g² in the row + ε), C the same for columns ;  1 / √(mean R)

import package::lib::{lines::{blocks_of, load_sum}, skip::skips, sum::sum_over_lanes};
import package::tables::{Chunk, Scalars, WORKGROUP, tensors};

@group(1) @binding(2) var<storage, read_write> row_var: array<f32>;
@group(1) @binding(3) var<storage, read_write> col_var: array<f32>;

fn moved(old: f32, sum: f32, count: u32, s: Scalars) -> f32 {
    return s.beta2 * old + s.one_minus_beta2 * (sum / f32(count) + s.eps);
}

fn move_lines(lane: u32, whole: Chunk, s: Scalars) {
    let columns = whole.row_len;
    let rows = whole.len / columns;
    let sums = tensors.each[whole.tensor].lines;
    var mean = 0.0;
    for (var i = lane; i < rows; i += WORKGROUP) {
        let r = moved(row_var[whole.lines + i], load_sum(sums, rows, columns, i), columns, s);
        if !skips() { row_var[whole.lines + i] = r; }
        mean += r / f32(rows);
    }
    for (var j = lane; j < columns; j += WORKGROUP) {
        let c = moved(col_var[whole.lines + j], load_sum(sums + rows * blocks_of(columns), columns, rows, j), rows, s);
        if !skips() { col_var[whole.lines + j] = c; }
    }
    let total = sum_over_lanes(lane, mean);
    if lane == 0u && !skips() { tensors.each[whole.tensor].inverse_norm = 1.0 / sqrt(total); }
}
