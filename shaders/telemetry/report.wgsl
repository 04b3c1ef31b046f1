// What was observed of a tensor, from that of its chunks, and a score that separates what was selected: one workgroup per tensor.

import package::lib::{bracket::{bracket_of, keys_of}, observations::{OF_CHUNK, OF_TENSOR, SUMS, observations}};
import package::lib::{sum::sum_over_lanes, totals::{clear_totals, total}};
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
    let first = OF_CHUNK * tensors.each[tensor].first_chunk;
    let record = grid.records + OF_TENSOR * tensor;
    let chunk_count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    for (var word = 0u; word < SUMS; word += 1u) {
        var own = 0.0;
        for (var c = lane; c < chunk_count; c += WORKGROUP) {
            own += bitcast<f32>(atomicLoad(&observations[first + OF_CHUNK * c + word]));
        }
        let sum = sum_over_lanes(lane, own);
        if lane == 0u && at < grid.count { atomicStore(&observations[record + word], bitcast<u32>(sum)); }
        workgroupBarrier();
    }
    var agree = 0u;
    var lost = 0u;
    for (var c = lane; c < chunk_count; c += WORKGROUP) {
        agree += atomicLoad(&observations[first + OF_CHUNK * c + SUMS]);
        lost += atomicLoad(&observations[first + OF_CHUNK * c + SUMS + 1u]);
    }
    let positive = total(lane, 0u, agree);
    let broken = total(lane, 1u, lost);
    if lane == 0u && at < grid.count {
        atomicStore(&observations[record + SUMS], positive);
        atomicStore(&observations[record + SUMS + 1u], broken);
        atomicStore(&observations[record + SUMS + 2u], atomicLoad(&tensors.each[tensor].selected));
        atomicStore(&observations[record + SUMS + 3u], threshold_of(tensor));
        atomicStore(&observations[record + SUMS + 4u], tensors.each[tensor].missed);
        atomicStore(&observations[record + SUMS + 5u], atomicLoad(&tensors.each[tensor].inside));
    }
}
