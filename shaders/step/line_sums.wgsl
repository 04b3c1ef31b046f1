// Σ x² per row or column of a matrix. A workgroup sums 32 rows or columns, with eight lanes each. x is a gradient or a direction.

import package::access::grad::load_grad;
import package::lib::{gradients::clip, largest::{LARGEST, within_squares}, skip::scalars_of};
import package::tables::{Chunk, Invocation, Scalars, chunks, counters, grid, linear_block, tensors};

const LINES: u32 = 32u;
const SHARES: u32 = 8u;     // of a row or column

var<workgroup> terms: array<f32, 256>;

fn value(whole: Chunk, index: u32, s: Scalars) -> f32 {
    let vector = index / 4u;
    return within_squares(clip(load_grad(whole.grad / 4u + vector, min(4u, whole.len - 4u * vector)), s))[index % 4u];
}

// Sums stay finite: they are at most LARGEST².
fn add(sum: f32, square: f32) -> f32 {
    return min(sum, LARGEST * LARGEST - square) + square;
}

@compute @workgroup_size(256)
fn line_sums(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let whole = chunks[grid.first + in.workgroup.y];
    let s = scalars_of(whole);
    let columns = whole.row_len;
    let rows = whole.len / columns;
    let sums_rows = tensors.each[whole.tensor].sums_rows == 1u;
    let row_parts = select(0u, (rows + LINES - 1u) / LINES, sums_rows);
    let part = linear_block(in);
    let is_row = part < row_parts;
    let count = select(select(0u, columns, tensors.each[whole.tensor].sums_columns == 1u), rows, is_row);
    let len = select(rows, columns, is_row);
    // Lanes side by side take coordinates side by side.
    let line = select(LINES * (part - row_parts) + lane % LINES, LINES * part + lane / SHARES, is_row);
    let share = select(lane / LINES, lane % SHARES, is_row);
    var sum = 0.0;
    if line < count {
        for (var k = share; k < len; k += SHARES) {
            let x = value(whole, select(k * columns + line, line * columns + k, is_row), s);
            sum = add(sum, x * x);
        }
    }
    terms[lane] = sum;
    workgroupBarrier();
    let own = select(LINES * (part - row_parts) + lane, LINES * part + lane, is_row);
    if lane < LINES && own < count {
        var total = 0.0;
        for (var i = 0u; i < SHARES; i += 1u) {
            total = add(total, terms[select(LINES * i + lane, SHARES * lane + i, is_row)]);
        }
        let first = tensors.each[whole.tensor].lines + grid.second_sums * count + select(0u, rows, sums_rows && !is_row);
        atomicStore(&counters[first + own], bitcast<u32>(total));
    }
}
