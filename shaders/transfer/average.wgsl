// θ ← θ − (1−β1) / β1 (z − θ): turns the parameter into the average, for evaluation. With BACK, the sign is +: it turns the average back.

import package::access::{chunk::work_at, offset::load_offset, param::{load_param, store_param}};
import package::tables::{Invocation, LANES, grid, linear, scalars};

override BACK: bool = false;

@compute @workgroup_size(32)
fn average(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = work_at(grid.first + at);
        let s = scalars[chunk.scalars];
        var share = s.one_minus_beta1 / s.beta1;
        if BACK { share = -share; }
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let theta = load_param(chunk, j, lanes);
            store_param(chunk, j, lanes, theta - share * load_offset(chunk.offset / 4u + j));
        }
    }
}
