// Ranks the listed candidates digit by digit and finishes them. After a miss, searches all coordinates in the same way and corrects what the
// stream decided, or leaves that to `recount.wgsl`. One workgroup per tensor.

import package::finish::finish;
import package::lib::{bins::{clear_bins, counted_populations}, bracket::{bracket_of, keys_of}, order::NAN_KEY, revisit::revisit};
import package::lib::search::{DIGITS, Search, begin_search, count_digits, publish_search, search, take_digit};
import package::lib::{candidates::{Candidate, lies_in, read_candidate}, skip::scalars_of};
import package::tables::{BINS, Chunk, Invocation, Scalars, WORKGROUP, chunks, counters, grid, linear, tensors};

const RANK: u32 = 1u;
const SELECT_AGAIN: u32 = 2u;
const PREPARE: u32 = 3u;    // the bins that `recount.wgsl` adds to

var<workgroup> task: u32;

// NaN after the end.
fn listed(tensor: u32, place: u32, len: u32) -> Candidate {
    let slot = atomicLoad(&counters[tensors.each[tensor].list + min(place, len - 1u)]);
    let found = read_candidate(tensors.each[tensor].candidates, slot);
    return Candidate(found.index, select(NAN_KEY, found.key, place < len), found.direction);
}

fn settle_one(piece: Chunk, s: Scalars, candidate: Candidate, sought: Search) {
    if candidate.key != NAN_KEY && lies_in(piece, candidate) {
        let tie = candidate.key == sought.cut.key && candidate.index < sought.cut.limit;
        finish(piece, s, candidate, candidate.key > sought.cut.key || tie);
    }
}

// Counts a digit of the candidates, or finishes them. Four loads at once, because each takes long.
fn rank(piece: Chunk, lane: u32, s: Scalars, sought: Search) {
    let len = atomicLoad(&tensors.each[piece.tensor].listed);
    for (var place = lane; place < len; place += 4u * WORKGROUP) {
        let a = listed(piece.tensor, place, len);
        let b = listed(piece.tensor, place + WORKGROUP, len);
        let c = listed(piece.tensor, place + 2u * WORKGROUP, len);
        let d = listed(piece.tensor, place + 3u * WORKGROUP, len);
        if sought.digit == DIGITS {
            settle_one(piece, s, a, sought);
            settle_one(piece, s, b, sought);
            settle_one(piece, s, c, sought);
            settle_one(piece, s, d, sought);
        } else {
            count_digits(sought, vec4<u32>(a.key, b.key, c.key, d.key), vec4<u32>(a.index, b.index, c.index, d.index));
        }
    }
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
    if chosen_task == PREPARE {
        let first = tensors.each[piece.tensor].search;
        for (var bin = lane; bin < DIGITS * BINS; bin += WORKGROUP) {
            atomicStore(&counters[first + bin], 0u);
        }
        return;
    }
    let s = scalars_of(piece);
    let ranks = chosen_task == RANK;
    if ranks {
        let bin = keys_of(bracket_of(piece.tensor), u32(max(tensors.each[piece.tensor].boundary, 0)));
        begin_search(lane, tensors.each[piece.tensor].remaining, bin.lowest, bin.lowest + (1u << bin.open_bits) - 1u);
    } else {
        begin_search(lane, tensors.each[piece.tensor].k, 0u, ~0u);
    }
    loop {
        clear_bins(lane);
        let sought = workgroupUniformLoad(&search);
        if ranks { rank(piece, lane, s, sought); } else { revisit(piece, lane, s, sought); }
        if sought.digit == DIGITS { break; }
        workgroupBarrier();
        take_digit(lane, counted_populations(lane), tensors.each[piece.tensor].numel, false);
    }
    if lane == 0u {
        if ranks { tensors.each[piece.tensor].found = search.cut; } else { publish_search(piece.tensor); }
    }
}
