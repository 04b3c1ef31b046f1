// The search after a miss in tensors that are too large for one workgroup: a dispatch for each of six digits, which adds to a histogram
// of its own, then one that corrects what the stream decided wrongly. Every workgroup finds the digits so far from their histograms.

import package::lib::{bins::{clear_bins, flush_bins}, find_bin::read_populations, revisit::revisit, skip::scalars_of};
import package::lib::search::{DIGITS, begin_search, publish_search, search, take_digit};
import package::tables::{BINS, Invocation, chunks, grid, linear, tensors};

var<workgroup> passed: u32;     // digits that are counted, and one; 0 if there is nothing to do

@compute @workgroup_size(256)
fn recount(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if lane == 0u {
        // Not the uniform itself: some drivers compile a kernel again for each value of a uniform that it branches on.
        passed = 0u;
        if at < grid.count {
            let tensor = chunks[grid.first + at].tensor;
            if tensors.each[tensor].search > 0u { passed = tensors.each[tensor].missed * (grid.digit + 1u); }
        }
    }
    let end = workgroupUniformLoad(&passed);
    if end == 0u { return; }
    let piece = chunks[grid.first + at];
    let histograms = tensors.each[piece.tensor].search;
    begin_search(lane, tensors.each[piece.tensor].k, 0u, ~0u);
    for (var digit = 0u; digit + 1u < end; digit += 1u) {
        if workgroupUniformLoad(&search).digit == digit {
            take_digit(lane, read_populations(histograms + digit * BINS, lane), 0xffffffffu, false);
        }
    }
    let sought = workgroupUniformLoad(&search);
    let corrects = end == DIGITS + 1u;
    if (sought.digit == DIGITS) != corrects { return; }
    if corrects && lane == 0u { publish_search(piece.tensor); }
    clear_bins(lane);
    revisit(piece, lane, scalars_of(piece), sought);
    flush_bins(lane, histograms + min(sought.digit, DIGITS - 1u) * BINS, 1u);
}
