// The cut after the rank-th largest of a tensor's sample, digit by digit. One workgroup per cut: the high and the low end of the bracket, or
// the one cut of approximate selection. An end of the bracket may lie a few ranks further out, which saves most passes over the sample: two
// digits are enough where few sampled keys share them. Also clears the results of the last step.

import package::lib::{bins::{clear_bins, counted_populations}, find_bin::take_populations, order::NAN_KEY};
import package::lib::{sampling::{SECTOR, sampled_sector}, search::{DIGITS, Search, begin_search, count_digits, search, take_digit}};
import package::tables::{BINS, Cut, EACH, Invocation, WORKGROUP, grid, linear, tensors};

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

var<workgroup> done: u32;

// NaN after the end.
fn load_keys(first: u32, vectors: u32, j: u32) -> vec4<u32> {
    return select(vec4<u32>(NAN_KEY), samples[first + min(j, vectors - 1u)], vec4<bool>(j < vectors));
}

// Counts the next digit. Eight loads at once, because each takes long.
fn count_sample(first: u32, vectors: u32, lane: u32, sought: Search) {
    for (var j = lane; j < vectors; j += 8u * WORKGROUP) {
        var found = array<vec4<u32>, 8>(
            load_keys(first, vectors, j),
            load_keys(first, vectors, j + WORKGROUP),
            load_keys(first, vectors, j + 2u * WORKGROUP),
            load_keys(first, vectors, j + 3u * WORKGROUP),
            load_keys(first, vectors, j + 4u * WORKGROUP),
            load_keys(first, vectors, j + 5u * WORKGROUP),
            load_keys(first, vectors, j + 6u * WORKGROUP),
            load_keys(first, vectors, j + 7u * WORKGROUP),
        );
        for (var i = 0u; i < 8u; i += 1u) {
            count_digits(sought, found[i], vec4<u32>(4u * (j + i * WORKGROUP)) + EACH);
        }
    }
}

// Publishes the cut if the digits so far are enough to know it.
fn publish(tensor: u32, bound: u32, rank: u32, found: Search) -> bool {
    // Approximate selection has no second rank, and its width is 0.
    let width = tensors.each[tensor].rank_low - min(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low);
    var cut = found.cut;            // before all, for a rank of 0
    if found.selected < rank {
        cut = Cut(0u, 0u);          // after all, since there are fewer numbers
    } else if found.digit == DIGITS && rank > 0u {
        let place = found.cut.limit - 1u;
        let sector = sampled_sector(tensor, tensors.each[tensor].t, place / SECTOR);
        cut.limit = SECTOR * sector + place % SECTOR + 1u;
    } else if found.digit >= 2u && found.digit < DIGITS - 1u && found.same <= width / 32u {
        // Before all keys of the bin, or after them; not once only some of the tied ones are counted.
        let last = found.cut.key + select(0u, 1023u, found.digit == 2u);
        cut = Cut(select(found.cut.key - 1u, last, bound == 0u), 0u);
    } else if rank > 0u {
        return false;
    }
    if bound == 1u {
        tensors.each[tensor].low = cut;
        return true;
    }
    tensors.each[tensor].high = cut;
    tensors.each[tensor].missed = 0u;
    atomicStore(&tensors.each[tensor].inside, 0u);
    atomicStore(&tensors.each[tensor].listed, 0u);
    atomicStore(&tensors.each[tensor].selected, 0u);
    return true;
}

@compute @workgroup_size(256)
fn rank_sample(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count * grid.bounds {
        let tensor = grid.first + at / grid.bounds;
        let bound = at % grid.bounds;
        let rank = select(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low, bound == 1u);
        let first = tensors.each[tensor].sample / 4u;
        let vectors = SECTOR / 4u * tensors.each[tensor].strata;
        var populations = take_populations(tensors.each[tensor].histogram + bound * BINS, lane);
        begin_search(lane, rank, 0u, 0xffffffffu);
        // One loop, not three calls: drivers copy what a call runs, and compile each copy.
        loop {
            take_digit(lane, populations, 4u * vectors, true);
            if lane == 0u { done = select(0u, 1u, publish(tensor, bound, rank, search)); }
            if workgroupUniformLoad(&done) == 1u { break; }
            clear_bins(lane);
            count_sample(first, vectors, lane, search);
            workgroupBarrier();
            populations = counted_populations(lane);
        }
    }
}
