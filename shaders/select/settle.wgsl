// Ranks the listed candidates by bisection, first of the key, then of the index, and finishes them. After a miss, searches all coordinates
// instead and corrects what the stream decided, or leaves that to `recount.wgsl`. One workgroup per tensor.

import package::finish::finish;
import package::lib::{bracket::{bracket_of, keys_of}, candidates::{Candidate, lies_in, read_candidate}, skip::scalars_of};
import package::lib::{bins::{clear_bins, counted_populations}, revisit::revisit, totals::{clear_totals, total}};
import package::lib::search::{DIGITS, begin_search, publish_search, search, take_digit};
import package::tables::{BINS, Chunk, Cut, Invocation, Scalars, WORKGROUP, chunks, counters, grid, linear, tensors};

const RANK: u32 = 1u;
const SELECT_AGAIN: u32 = 2u;
const PREPARE: u32 = 3u;    // the bins that `recount.wgsl` adds to

var<workgroup> task: u32;
var<workgroup> rounds: u32;

fn listed(candidates: u32, list: u32, place: u32) -> Candidate {
    return read_candidate(candidates, atomicLoad(&counters[list + place]));
}

fn rank(piece: Chunk, lane: u32, s: Scalars) {
    let tensor = piece.tensor;
    let candidates = tensors.each[tensor].candidates;
    let list = tensors.each[tensor].list;
    let remaining = tensors.each[tensor].remaining;
    let len = atomicLoad(&tensors.each[tensor].listed);
    clear_totals(lane);
    // A lane keeps its first candidate.
    let has_own = lane < len;
    let next = lane + WORKGROUP;
    var own = Candidate(0u, 0u, 0.0);
    if has_own { own = listed(candidates, list, lane); }

    // The largest key that at least `remaining` reach, from the lowest of the bin.
    let bin = keys_of(bracket_of(tensor), u32(max(tensors.each[tensor].boundary, 0)));
    if lane == 0u { rounds = bin.open_bits; }
    let key_rounds = workgroupUniformLoad(&rounds);
    var threshold = bin.lowest;
    var turn = 0u;
    for (var round = key_rounds; round > 0u; round -= 1u) {
        let trial = threshold + (1u << (round - 1u));
        var mine = select(0u, 1u, has_own && own.key >= trial);
        for (var place = next; place < len; place += WORKGROUP) {
            mine += select(0u, 1u, listed(candidates, list, place).key >= trial);
        }
        if total(lane, turn, mine) >= remaining { threshold = trial; }
        turn += 1u;
    }

    // Of the tied ones, the lowest indices: the largest index that fewer than `wanted` of them are below.
    var above = select(0u, 1u, has_own && own.key > threshold);
    var tied = select(0u, 1u, has_own && own.key == threshold);
    for (var place = next; place < len; place += WORKGROUP) {
        let found = listed(candidates, list, place).key;
        above += select(0u, 1u, found > threshold);
        tied += select(0u, 1u, found == threshold);
    }
    let wanted = remaining - total(lane, turn, above);
    let all = total(lane, turn + 1u, tied) == wanted;
    turn += 2u;
    if lane == 0u { rounds = select(32u - countLeadingZeros(tensors.each[tensor].numel), 0u, all); }
    let index_rounds = workgroupUniformLoad(&rounds);
    var last = 0u;
    for (var round = index_rounds; round > 0u; round -= 1u) {
        let trial = last + (1u << (round - 1u));
        var mine = select(0u, 1u, has_own && own.key == threshold && own.index < trial);
        for (var place = next; place < len; place += WORKGROUP) {
            let candidate = listed(candidates, list, place);
            mine += select(0u, 1u, candidate.key == threshold && candidate.index < trial);
        }
        if total(lane, turn, mine) < wanted { last = trial; }
        turn += 1u;
    }

    if lane == 0u { tensors.each[tensor].found = Cut(threshold, 0u); }
    for (var place = lane; place < len; place += WORKGROUP) {
        let candidate = listed(candidates, list, place);
        let tie = candidate.key == threshold && (all || candidate.index <= last);
        if lies_in(piece, candidate) {
            finish(piece, s, candidate, candidate.key > threshold || tie);
        }
    }
}

fn select_again(piece: Chunk, lane: u32, s: Scalars) {
    begin_search(lane);
    loop {
        clear_bins(lane);
        let sought = workgroupUniformLoad(&search);
        revisit(piece, lane, s, sought);
        if sought.digit == DIGITS { break; }
        workgroupBarrier();
        take_digit(lane, piece.tensor, counted_populations(lane));
    }
    if lane == 0u { publish_search(piece.tensor); }
}

@compute @workgroup_size(256)
fn settle(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if lane == 0u {
        task = 0u;
        if at < grid.count && chunks[grid.first + at].part == 0u {
            let tensor = chunks[grid.first + at].tensor;
            if tensors.each[tensor].remaining > 0u && atomicLoad(&tensors.each[tensor].listed) > 0u { task = RANK; }
            if tensors.each[tensor].missed == 1u { task = select(SELECT_AGAIN, PREPARE, tensors.each[tensor].search > 0u); }
        }
    }
    let chosen_task = workgroupUniformLoad(&task);
    if chosen_task == 0u { return; }
    var piece = chunks[grid.first + at];
    piece.parts = 1u;
    let s = scalars_of(piece);
    if chosen_task == RANK { rank(piece, lane, s); }
    if chosen_task == SELECT_AGAIN { select_again(piece, lane, s); }
    if chosen_task == PREPARE {
        let first = tensors.each[piece.tensor].search;
        for (var bin = lane; bin < DIGITS * BINS; bin += WORKGROUP) {
            atomicStore(&counters[first + bin], 0u);
        }
    }
}
