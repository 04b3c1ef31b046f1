// Ranks the listed candidates by bisection, first of the key, then of the index, and finishes them. One workgroup per tensor.

import package::finish::finish;
import package::lib::{bracket::{bracket_of, keys_of}, candidates::{Candidate, lies_in, read_candidate}, skip::scalars_of};
import package::lib::totals::{clear_totals, total};
import package::tables::{Cut, Invocation, WORKGROUP, chunks, counters, grid, linear, tensors};

var<workgroup> rounds: u32;

fn listed(candidates: u32, list: u32, place: u32) -> Candidate {
    return read_candidate(candidates, atomicLoad(&counters[list + place]));
}

@compute @workgroup_size(256)
fn settle(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    clear_totals(lane);
    let at = linear(in);
    if at < grid.count {
        let piece = chunks[grid.first + at];
        let s = scalars_of(piece);
        let tensor = piece.tensor;
        let bracket = bracket_of(tensor);
        let candidates = tensors.each[tensor].candidates;
        let list = tensors.each[tensor].list;
        let remaining = tensors.each[tensor].remaining;
        let first_part = piece.part == 0u;
        let count = select(0u, atomicLoad(&tensors.each[tensor].listed), first_part && remaining > 0u);

        // The largest key that at least `remaining` reach, from the lowest of the bin.
        let bin = keys_of(bracket, u32(max(tensors.each[tensor].boundary, 0)));
        if lane == 0u { rounds = select(0u, bin.open_bits, count > 0u); }
        let key_rounds = workgroupUniformLoad(&rounds);
        var threshold = bin.lowest;
        var turn = 0u;
        for (var round = key_rounds; round > 0u; round -= 1u) {
            let trial = threshold + (1u << (round - 1u));
            var mine = 0u;
            for (var place = lane; place < count; place += WORKGROUP) {
                mine += select(0u, 1u, listed(candidates, list, place).key >= trial);
            }
            if total(lane, turn, mine) >= remaining { threshold = trial; }
            turn += 1u;
        }

        // Of the tied ones, the lowest indices: the largest index that fewer than `wanted` of them are below.
        var above = 0u;
        var tied = 0u;
        for (var place = lane; place < count; place += WORKGROUP) {
            let found = listed(candidates, list, place).key;
            above += select(0u, 1u, found > threshold);
            tied += select(0u, 1u, found == threshold);
        }
        let wanted = remaining - total(lane, turn, above);
        let all = total(lane, turn + 1u, tied) == wanted;
        turn += 2u;
        if lane == 0u {
            rounds = select(32u - countLeadingZeros(tensors.each[tensor].numel), 0u, all || count == 0u);
        }
        let index_rounds = workgroupUniformLoad(&rounds);
        var last = 0u;
        for (var round = index_rounds; round > 0u; round -= 1u) {
            let trial = last + (1u << (round - 1u));
            var mine = 0u;
            for (var place = lane; place < count; place += WORKGROUP) {
                let candidate = listed(candidates, list, place);
                mine += select(0u, 1u, candidate.key == threshold && candidate.index < trial);
            }
            if total(lane, turn, mine) < wanted { last = trial; }
            turn += 1u;
        }

        if lane == 0u && count > 0u { tensors.each[tensor].found = Cut(threshold, 0u); }
        for (var place = lane; place < count; place += WORKGROUP) {
            let candidate = listed(candidates, list, place);
            let tie = candidate.key == threshold && (all || candidate.index <= last);
            if lies_in(piece, candidate) {
                finish(piece, s, candidate, candidate.key > threshold || tie);
            }
        }
    }
}
