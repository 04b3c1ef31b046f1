// θ' ← the master θ, rounded to two bytes: one chunk per workgroup. Does nothing in a skipped step. Marks the tensor's masters as set.

import package::{access::grad::store_half, access::param::load_param};
import package::lib::skip::chunk_at;
import package::tables::{Invocation, LANES, grid, linear, tensors};

@compute @workgroup_size(32)
fn round_masters(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            store_half(chunk.grad / 4u + j, lanes, load_param(chunk, j, lanes));
        }
        if chunk.index == 0u && lane == 0u { tensors.each[chunk.tensor].mastered = 1u; }
    }
}
