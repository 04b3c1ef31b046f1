// Σ x² per row or column of a matrix. A workgroup sums up to 1,024 coordinates of each of 32 rows or columns, with
// eight lanes each. x is a gradient or a direction.

import package::access::grad::load_one;
import package::lib::{gradients::clip, largest::within_squares, lines::{BLOCK, add, blocks_of, store_line}, skip::scalars_of};
import package::tables::{Chunk, Invocation, Scalars, chunks, grid, linear_block, tensors};

const LINES: u32 = 32u;
const SHARES: u32 = 8u;     // of a row or column

var<workgroup> terms: array<f32, 256>;

fn value(whole: Chunk, index: u32, s: Scalars) -> f32 {
    return within_squares(clip(vec4<f32>(load_one(whole.grad + index)), s)).x;
}

@compute @workgroup_size(256)
fn line_sums(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let whole = chunks[grid.first + in.workgroup.y];
    let s = scalars_of(whole);
    let columns = whole.row_len;
    let rows = whole.len / columns;
    let sums_rows = tensors.each[whole.tensor].sums_rows == 1u;
    let row_parts = select(0u, (rows + LINES - 1u) / LINES * blocks_of(columns), sums_rows);
    let part = linear_block(in);
    let is_row = part < row_parts;
    let count = select(select(0u, columns, tensors.each[whole.tensor].sums_columns == 1u), rows, is_row);
    let len = select(rows, columns, is_row);
    let blocks = blocks_of(len);
    let own = select(part - row_parts, part, is_row);
    let first_line = own / blocks * LINES;
    let block = own % blocks;
    // Lanes side by side take coordinates side by side.
    let line = first_line + select(lane % LINES, lane / SHARES, is_row);
    let share = select(lane / LINES, lane % SHARES, is_row);
    let end = min(len, (block + 1u) * BLOCK);
    var sum = 0.0;
    if line < count {
        for (var k = block * BLOCK + share; k < end; k += SHARES) {
            let x = value(whole, select(k * columns + line, line * columns + k, is_row), s);
            sum = add(sum, x * x);
        }
    }
    terms[lane] = sum;
    workgroupBarrier();
    if lane < LINES && first_line + lane < count {
        var total = 0.0;
        for (var i = 0u; i < SHARES; i += 1u) {
            total = add(total, terms[select(LINES * i + lane, SHARES * lane + i, is_row)]);
        }
        let second = grid.second_sums * count * blocks + select(0u, rows * blocks_of(columns), sums_rows && !is_row);
        store_line(tensors.each[whole.tensor].lines + second + block * count + first_line + lane, total);
    }
}
