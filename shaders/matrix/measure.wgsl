// 1 / (‖d‖ + 1e-7) of every matrix, and what its step is scaled by: one workgroup per matrix, sums in a fixed tree. Where ‖d‖² is beyond
// f32's range, −1 / (2⁻⁹⁶ ‖d‖): the sign tells.

import package::{matrix::totals::total_of, rate::{gradient_total, set_rate}};
import package::lib::{far::EXPONENT, skip::{scalars_of, skips}};
import package::tables::{Invocation, chunks, grid, tensors};

var<workgroup> beyond: u32;

@compute @workgroup_size(256)
fn measure(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let direction = total_of(lane, grid.norms, matrix.tensor, false);
    let gradient = gradient_total(lane, matrix.tensor);
    if lane == 0u { beyond = select(0u, 1u, (bitcast<u32>(direction) & EXPONENT) == EXPONENT); }
    var inverse = 1.0 / (sqrt(direction) + 1e-7);
    if workgroupUniformLoad(&beyond) == 1u {
        inverse = -1.0 / sqrt(total_of(lane, grid.norms, matrix.tensor, true));
    }
    if lane == 0u && !skips() {
        tensors.each[matrix.tensor].inverse_norm = inverse;
        set_rate(matrix.tensor, scalars_of(matrix), sqrt(gradient), sqrt(direction));
    }
}
