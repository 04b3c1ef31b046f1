// The cut after the rank-th largest of a tensor's sample: digit by digit from histograms of its keys, 11, 11 and 10 bits, then by index.
// One workgroup per cut: the high and the low end of the bracket, or the one cut of approximate selection. An end of the bracket may lie a
// few ranks further out, which saves the last passes over the sample: 22 bits are enough where few sampled keys share them. Also clears
// the results of the last step.

import package::lib::bins::{clear_bins, count_each, counted_populations};
import package::lib::{find_bin::{find_bin, population, scan, sums, take_populations}, flags::ones};
import package::lib::sampling::{SECTOR, sampled_sector};
import package::tables::{BINS, Cut, Invocation, WORKGROUP, grid, linear, tensors};

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

var<workgroup> digits: u32;     // of the key of the rank-th largest, as far as they are known
var<workgroup> left: u32;       // its rank among the keys that share them
var<workgroup> same: u32;       // how many keys share them
var<workgroup> place: u32;      // in the sample
var<workgroup> owner: u32;      // the lane whose vectors hold it,
var<workgroup> passed: u32;     // and how many of the tied keys lie before them
var<workgroup> enough: u32;

fn load_keys(first: u32, j: u32, vectors: u32) -> vec4<u32> {
    return samples[first + min(j, vectors - 1u)];
}

// Counts the next digit of those keys that share the known ones: `known` bits lie below these, `shift` below the next one.
fn count_keys(found: vec4<u32>, is_there: bool, known: u32, shift: u32) {
    let inside = ((found >> vec4<u32>(known)) == vec4<u32>(digits >> known)) & vec4<bool>(is_there);
    if any(inside) {
        count_each((found >> vec4<u32>(shift)) & vec4<u32>((1u << (known - shift)) - 1u), 0u, inside);
    }
}

// The populations of the bins of the next digit. Four loads at once, because each takes long.
fn count_digit(lane: u32, first: u32, vectors: u32, known: u32, shift: u32) -> array<u32, 8> {
    clear_bins(lane);
    for (var j = lane; j < vectors; j += 4u * WORKGROUP) {
        let second = j + WORKGROUP;
        let third = second + WORKGROUP;
        let fourth = third + WORKGROUP;
        let a = load_keys(first, j, vectors);
        let b = load_keys(first, second, vectors);
        let c = load_keys(first, third, vectors);
        let d = load_keys(first, fourth, vectors);
        count_keys(a, true, known, shift);
        count_keys(b, second < vectors, known, shift);
        count_keys(c, third < vectors, known, shift);
        count_keys(d, fourth < vectors, known, shift);
    }
    workgroupBarrier();
    return counted_populations(lane);
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

@compute @workgroup_size(256)
fn rank_sample(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count * grid.bounds {
        let tensor = grid.first + at / grid.bounds;
        let bound = at % grid.bounds;
        let rank = select(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low, bound == 1u);
        let first = tensors.each[tensor].sample / 4u;
        let vectors = SECTOR / 4u * tensors.each[tensor].strata;
        if lane == 0u {
            digits = 0u;
            left = rank;
            place = 0u;
            owner = 0u;
            passed = 0u;
        }
        let width = tensors.each[tensor].rank_low - min(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low);
        var populations = take_populations(tensors.each[tensor].histogram + bound * BINS, lane);
        var exists = false;
        var shift = 21u;
        // One loop, not three calls: drivers copy what a call runs, and compile each copy.
        loop {
            // Finds the bin that holds the rank sought, and makes it the next digit.
            let through = scan(lane, population(populations));
            let found = find_bin(lane, populations, through, left);
            let prefix = digits;
            if shift == 21u { exists = rank > 0u && rank <= sums[WORKGROUP - 1u]; }
            workgroupBarrier();
            if found.is_here {
                digits = prefix | (found.bin << shift);
                left -= found.before;
                same = found.population;
            }
            workgroupBarrier();
            if shift == 10u {
                if lane == 0u {
                    // Approximate selection has no second rank, and its width is 0.
                    enough = select(0u, 1u, exists && same <= width / 32u);
                }
                if workgroupUniformLoad(&enough) == 1u {
                    if lane == 0u {
                        // Before all 2^10 keys of the bin, or after them.
                        publish(tensor, bound, Cut(select(digits - 1u, digits + 1023u, bound == 0u), 0u));
                    }
                    return;
                }
            }
            if shift == 0u { break; }
            let known = shift;
            shift = select(0u, 10u, shift == 21u);
            populations = count_digit(lane, first, select(0u, vectors, exists), known, shift);
        }

        // The last of those that are tied: consecutive vectors per lane, then the vectors of the lane that has it.
        let share = (vectors + WORKGROUP - 1u) / WORKGROUP;
        let end = select(0u, min((lane + 1u) * share, vectors), exists);
        let threshold = vec4<u32>(digits);
        var tied = 0u;
        for (var j = lane * share; j < end; j += 4u) {
            let a = load_keys(first, j, end) == threshold;
            let b = load_keys(first, j + 1u, end) == threshold;
            let c = load_keys(first, j + 2u, end) == threshold;
            let d = load_keys(first, j + 3u, end) == threshold;
            tied += ones(a);
            tied += select(0u, ones(b), j + 1u < end);
            tied += select(0u, ones(c), j + 2u < end);
            tied += select(0u, ones(d), j + 3u < end);
        }
        let through = scan(lane, tied);
        if through - tied < left && left <= through {
            owner = lane;
            passed = through - tied;
        }
        workgroupBarrier();
        let own = owner * share + lane;
        let is_own = exists && lane < share && own < vectors;
        let shown = (load_keys(first, own, vectors) == threshold) & vec4<bool>(is_own);
        let reached = passed + scan(lane, ones(shown));
        var ahead = reached - ones(shown);
        if ahead < left && left <= reached {
            for (var c = 0u; c < 4u; c += 1u) {
                ahead += select(0u, 1u, shown[c]);
                if ahead == left {
                    place = 4u * own + c;
                    break;
                }
            }
        }
        workgroupBarrier();

        if lane == 0u {
            var cut = Cut(0u, 0u);                  // after all
            if rank == 0u {
                cut = Cut(0xffffffffu, 0u);         // before all
            } else if exists {
                let sector = sampled_sector(tensor, tensors.each[tensor].t, place / SECTOR);
                cut = Cut(digits, SECTOR * sector + place % SECTOR + 1u);
            }
            publish(tensor, bound, cut);
        }
    }
}
