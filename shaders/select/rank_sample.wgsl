// The cut after the rank-th largest of a tensor's sample: digit by digit from histograms of its keys, 11, 11 and 10 bits, then by index.
// One workgroup per cut: the high and the low end of the bracket, or the one cut of approximate selection. An end of the bracket may lie a
// few ranks further out, which saves the last passes over the sample: 22 bits are enough where few sampled keys share them. Also clears
// the results and launches of the last step.

import package::lib::bins::{bins, clear_bins, count_each};
import package::lib::{find_bin::{BINS_PER_LANE, find_bin, highest_bin, population, scan, sums, take_populations}, flags::ones};
import package::lib::sampling::{SECTOR, sampled_sector};
import package::tables::{BINS, Cut, Invocation, WORKGROUP, grid, linear, tensors};

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;
@group(2) @binding(1) var<storage, read_write> launches: array<atomic<u32>>;

var<workgroup> digits: u32;     // of the key of the rank-th largest, as far as they are known
var<workgroup> left: u32;       // its rank among the keys that share them
var<workgroup> same: u32;       // how many keys share them
var<workgroup> place: u32;      // in the sample
var<workgroup> enough: u32;

// The populations of the bins of the next digit: `known` bits lie below the known digits, `shift` below the next one.
fn count_digit(lane: u32, first: u32, vectors: u32, known: u32, shift: u32) -> array<u32, 8> {
    clear_bins(lane);
    let prefix = vec4<u32>(digits >> known);
    let width = (1u << (known - shift)) - 1u;
    for (var j = lane; j < vectors; j += WORKGROUP) {
        let found = samples[first + j];
        let inside = (found >> vec4<u32>(known)) == prefix;
        if any(inside) {
            count_each((found >> vec4<u32>(shift)) & vec4<u32>(width), 0u, inside);
        }
    }
    workgroupBarrier();
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        populations[b] = atomicLoad(&bins[highest_bin(lane) - b]);
    }
    return populations;
}

fn publish(tensor: u32, bound: u32, cut: Cut) {
    if bound == 0u {
        tensors.each[tensor].high = cut;
        tensors.each[tensor].open = 0u;
        tensors.each[tensor].missed = 0u;
        atomicStore(&tensors.each[tensor].inside, 0u);
        atomicStore(&tensors.each[tensor].listed, 0u);
        atomicStore(&tensors.each[tensor].selected, 0u);
        atomicStore(&launches[3u * grid.launch], 0u);
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

        // The last of those that are tied: consecutive vectors per lane.
        let share = (vectors + WORKGROUP - 1u) / WORKGROUP;
        let end = min((lane + 1u) * share, vectors);
        let threshold = vec4<u32>(digits);
        var tied = 0u;
        if exists {
            for (var j = lane * share; j < end; j += 1u) {
                tied += ones(samples[first + j] == threshold);
            }
        }
        let through = scan(lane, tied);
        var passed = through - tied;
        if exists && passed < left && left <= through {
            for (var p = 4u * lane * share; p < 4u * end; p += 1u) {
                if samples[first + p / 4u][p % 4u] == threshold.x {
                    passed += 1u;
                    if passed == left { place = p; }
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
