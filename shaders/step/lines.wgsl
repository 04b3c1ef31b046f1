// Updates the states of rows and columns of a matrix from sums of squares: one workgroup per matrix.

import package::lines::move_lines;
import package::lib::skip::scalars_of;
import package::tables::{Invocation, chunks, grid};

@compute @workgroup_size(256)
fn lines(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let whole = chunks[grid.first + in.workgroup.y];
    move_lines(lane, whole, scalars_of(whole));
}
