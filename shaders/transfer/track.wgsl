// a ← a + w (θ − a) after every so many steps: the average of a parameter. The first update takes θ; the weight of update n is
// w = max(1 − decay, 1 / n), or 1 − decay without warm-up. One chunk per workgroup. Does nothing in a skipped step.

import package::access::{average::{load_average, store_average}, param::load_param};
import package::lib::skip::{chunk_at, scalars_of};
import package::tables::{Invocation, LANES, grid, linear, tensors};

@compute @workgroup_size(32)
fn track(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        var chunk = chunk_at(grid.first + at);
        let t = scalars_of(chunk).t;
        let since = t - min(t, grid.average_start);
        chunk.len = select(0u, chunk.len, since > 0u && since % grid.average_every == 0u);
        // The step of the first update, which this dispatch may be about to write.
        let begun = tensors.each[chunk.tensor].averaged;
        let begins = begun == 0u || begun >= t;
        var weight = bitcast<f32>(grid.average_rest);
        if grid.average_warms == 1u { weight = max(weight, 1.0 / f32((t - min(t, begun)) / grid.average_every + 1u)); }
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let theta = load_param(chunk, j, min(4u, chunk.len - 4u * j));
            let before = load_average(chunk.offset / 4u + j);
            store_average(chunk, j, select(before + weight * (theta - before), theta, begins), t);
        }
        if begins && chunk.index == 0u && chunk.len > 0u && lane == 0u { tensors.each[chunk.tensor].averaged = t; }
    }
}
