// Computes the factor of each tensor's step, which only the GPU knows: one workgroup per tensor.

import package::rate::{norms_of, set_rate};
import package::lib::skip::{scalars_of, skips};
import package::tables::{Invocation, chunks, grid};

@compute @workgroup_size(256)
fn rate(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let whole = chunks[grid.first + in.workgroup.y];
    let norms = norms_of(lane, whole.tensor);
    if lane == 0u && !skips() { set_rate(whole.tensor, scalars_of(whole), norms); }
}
