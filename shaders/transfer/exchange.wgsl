// θ ↔ a: parameters change places with their averages, for evaluation and, with BACK, back. One chunk per workgroup. Does nothing for a tensor
// whose average has not begun.

import package::access::{chunk::work_at, swap::swap};
import package::tables::{Invocation, LANES, grid, linear, tensors};

@compute @workgroup_size(32)
fn exchange(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        var chunk = work_at(grid.first + at);
        chunk.len = select(0u, chunk.len, tensors.each[chunk.tensor].averaged > 0u);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            swap(chunk, j, min(4u, chunk.len - 4u * j));
        }
    }
}
