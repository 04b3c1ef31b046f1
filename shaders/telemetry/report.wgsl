// What was observed of a tensor, from that of its chunks, and a score that separates what was selected: one workgroup per tensor.

import package::lib::{bracket::{bracket_of, keys_of}, observations::observations, sum::sum_over_lanes, totals::{clear_totals, total}};
import package::tables::{BINS, CHUNK, Invocation, WORKGROUP, grid, linear, tensors};

// The key of that score. Where no candidate had to be ranked it is the lowest of the last bin that was selected.
fn threshold_of(tensor: u32) -> u32 {
    let sampled = tensors.each[tensor].high.key;
    if grid.bounds == 1u { return sampled; }
    if grid.bounds == 0u || tensors.each[tensor].missed == 1u || tensors.each[tensor].remaining > 0u {
        return tensors.each[tensor].found.key;
    }
    let last = tensors.each[tensor].boundary + 1;
    return select(keys_of(bracket_of(tensor), u32(last)).lowest, sampled, last > i32(BINS - 1u));
}

@compute @workgroup_size(256)
fn report(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    clear_totals(lane);
    let at = linear(in);
    // No lane leaves early: all of them meet at the sums.
    let tensor = grid.first + min(at, grid.count - 1u);
    let first = 4u * tensors.each[tensor].first_chunk;
    let chunk_count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    var gradient = 0.0;
    var step = 0.0;
    var agree = 0u;
    var lost = 0u;
    for (var c = lane; c < chunk_count; c += WORKGROUP) {
        gradient += bitcast<f32>(atomicLoad(&observations[first + 4u * c]));
        step += bitcast<f32>(atomicLoad(&observations[first + 4u * c + 1u]));
        agree += atomicLoad(&observations[first + 4u * c + 2u]);
        lost += atomicLoad(&observations[first + 4u * c + 3u]);
    }
    let gradients = sum_over_lanes(lane, gradient);
    workgroupBarrier();
    let steps = sum_over_lanes(lane, step);
    let positive = total(lane, 0u, agree);
    let broken = total(lane, 1u, lost);
    if lane == 0u && at < grid.count {
        let record = grid.records + 8u * tensor;
        atomicStore(&observations[record], bitcast<u32>(gradients));
        atomicStore(&observations[record + 1u], bitcast<u32>(steps));
        atomicStore(&observations[record + 2u], positive);
        atomicStore(&observations[record + 3u], broken);
        atomicStore(&observations[record + 4u], atomicLoad(&tensors.each[tensor].selected));
        atomicStore(&observations[record + 5u], threshold_of(tensor));
        atomicStore(&observations[record + 6u], tensors.each[tensor].missed);
        atomicStore(&observations[record + 7u], atomicLoad(&tensors.each[tensor].inside));
    }
}
