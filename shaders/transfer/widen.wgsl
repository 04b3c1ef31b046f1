// θ ← θ', the master of a parameter in two bytes, unless it holds its values already; or Σ ← Σ + w g over the micro-batches of a step,
// where the sum lies in the place of the parameters. One chunk per workgroup.

import package::access::{chunk::work_at, grad::load_grad, param::{load_param, store_param}};
import package::tables::{Invocation, LANES, grid, linear, tensors};

override ADDS: bool = false;

@compute @workgroup_size(32)
fn widen_masters(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        var chunk = work_at(grid.first + at);
        chunk.len = select(0u, chunk.len, ADDS || tensors.each[chunk.tensor].mastered == 0u);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            var value = load_grad(chunk.grad / 4u + j, lanes);
            if ADDS { value = load_param(chunk, j, lanes) + tensors.weight * value; }
            store_param(chunk, j, lanes, value);
        }
    }
}
