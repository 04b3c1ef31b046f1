// The cut after the rank-th largest of a tensor's sample, from the histogram of its first digit, and digit by digit from the keys. One
// workgroup per cut: the high and the low end of the bracket, or the one cut of approximate selection. An end of the bracket may lie a few
// ranks further out, which saves most passes over the sample: two digits are enough where few sampled keys share them. Also clears the
// results of the last step.

import package::lib::{bins::{clear_bins, counted_populations}, find_bin::take_populations, order::NAN_KEY};
import package::lib::{sampling::{SECTOR, sampled_sector}, search::{DIGITS, Search, begin_search, count_digits, search, take_digit}};
import package::tables::{BINS, Cut, EACH, Invocation, WORKGROUP, grid, linear, tensors};

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

var<workgroup> done: u32;

struct Sample {
    first: u32,     // vector
    vectors: u32,
}

fn load_keys(sample: Sample, j: u32) -> vec4<u32> {
    return samples[sample.first + min(j, sample.vectors - 1u)];
}

fn count_keys(sample: Sample, j: u32, found: vec4<u32>, sought: Search) {
    let inside = vec4<bool>(j < sample.vectors);
    count_digits(sought, select(vec4<u32>(NAN_KEY), found, inside), vec4<u32>(4u * j) + EACH);
}

// Counts the next digit. Eight loads at once, because each takes long.
fn count_sample(sample: Sample, lane: u32, sought: Search) {
    for (var j = lane; j < sample.vectors; j += 8u * WORKGROUP) {
        var found = array<vec4<u32>, 8>(
            load_keys(sample, j),
            load_keys(sample, j + WORKGROUP),
            load_keys(sample, j + 2u * WORKGROUP),
            load_keys(sample, j + 3u * WORKGROUP),
            load_keys(sample, j + 4u * WORKGROUP),
            load_keys(sample, j + 5u * WORKGROUP),
            load_keys(sample, j + 6u * WORKGROUP),
            load_keys(sample, j + 7u * WORKGROUP),
        );
        for (var i = 0u; i < 8u; i += 1u) {
            count_keys(sample, j + i * WORKGROUP, found[i], sought);
        }
    }
}

fn publish(tensor: u32, bound: u32, cut: Cut) {
    if bound == 0u {
        tensors.each[tensor].high = cut;
        tensors.each[tensor].missed = 0u;
        atomicStore(&tensors.each[tensor].inside, 0u);
        atomicStore(&tensors.each[tensor].listed, 0u);
        atomicStore(&tensors.each[tensor].selected, 0u);
    } else {
        tensors.each[tensor].low = cut;
    }
}

// Publishes the cut if the digits so far are enough to know it.
fn publish_if_known(tensor: u32, bound: u32, rank: u32, found: Search) -> bool {
    // Approximate selection has no second rank, and its width is 0.
    let width = tensors.each[tensor].rank_low - min(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low);
    if found.selected < rank {
        publish(tensor, bound, Cut(0u, 0u));    // after all, since there are fewer numbers
    } else if rank == 0u {
        publish(tensor, bound, found.cut);      // before all
    } else if found.digit == DIGITS {
        let place = found.cut.limit - 1u;
        let sector = sampled_sector(tensor, tensors.each[tensor].t, place / SECTOR);
        publish(tensor, bound, Cut(found.cut.key, SECTOR * sector + place % SECTOR + 1u));
    } else if found.digit >= 2u && found.digit < DIGITS - 1u && found.same <= width / 32u {
        // Before all keys of the bin, or after them; not once only some of the tied ones are counted.
        let last = found.cut.key + select(0u, 1023u, found.digit == 2u);
        publish(tensor, bound, Cut(select(found.cut.key - 1u, last, bound == 0u), 0u));
    } else {
        return false;
    }
    return true;
}

@compute @workgroup_size(256)
fn rank_sample(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count * grid.bounds {
        let tensor = grid.first + at / grid.bounds;
        let bound = at % grid.bounds;
        let rank = select(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low, bound == 1u);
        let sample = Sample(tensors.each[tensor].sample / 4u, SECTOR / 4u * tensors.each[tensor].strata);
        var populations = take_populations(tensors.each[tensor].histogram + bound * BINS, lane);
        begin_search(lane, rank, 0u, 0xffffffffu);
        // One loop, not three calls: drivers copy what a call runs, and compile each copy.
        loop {
            take_digit(lane, populations, 4u * sample.vectors, true);
            if lane == 0u { done = select(0u, 1u, publish_if_known(tensor, bound, rank, search)); }
            if workgroupUniformLoad(&done) == 1u { break; }
            clear_bins(lane);
            count_sample(sample, lane, search);
            workgroupBarrier();
            populations = counted_populations(lane);
        }
    }
}
