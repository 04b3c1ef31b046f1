// Clears the count of selected coordinates: one lane per tensor.

import package::tables::{Invocation, WORKGROUP, grid, linear, tensors};

@compute @workgroup_size(256)
fn prepare(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in) * WORKGROUP + lane;
    if at < grid.count { atomicStore(&tensors.each[grid.first + at].selected, 0u); }
}
