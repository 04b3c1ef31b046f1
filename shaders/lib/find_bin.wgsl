// Where the K-th largest lies: a histogram spread over the lanes, from the highest bin down, 8 bins each; prefix sums over the lanes tell
// how many lie before each lane.

import package::tables::{BINS, WORKGROUP, counters};

const BINS_PER_LANE: u32 = 8u;

fn highest_bin(lane: u32) -> u32 {
    return BINS - 1u - BINS_PER_LANE * lane;
}

// The lane's 8 bins of a histogram among the counters.
fn read_populations(histogram: u32, lane: u32) -> array<u32, 8> {
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        populations[b] = atomicLoad(&counters[histogram + highest_bin(lane) - b]);
    }
    return populations;
}

// The same, and clears them.
fn take_populations(histogram: u32, lane: u32) -> array<u32, 8> {
    let populations = read_populations(histogram, lane);
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        atomicStore(&counters[histogram + highest_bin(lane) - b], 0u);
    }
    return populations;
}

fn population(populations: array<u32, 8>) -> u32 {
    var all = populations;
    var sum = 0u;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        sum += all[b];
    }
    return sum;
}

struct Found {
    is_here: bool,      // in this lane
    bin: u32,
    before: u32,        // how many lie in higher bins
    population: u32,
}

// The bin that holds the one of rank `wanted`; `through` is the prefix sum over the lanes.
fn find_bin(lane: u32, counted: array<u32, 8>, through: u32, wanted: u32) -> Found {
    var populations = counted;
    let before = through - population(counted);
    var found = Found(before < wanted && wanted <= through, highest_bin(lane), before, populations[0]);
    for (var b = 1u; b < BINS_PER_LANE && found.before + found.population < wanted; b += 1u) {
        found = Found(found.is_here, found.bin - 1u, found.before + found.population, populations[b]);
    }
    return found;
}

const SEGMENT: u32 = 16u;

var<workgroup> sums: array<u32, 256>;
var<workgroup> segments: array<u32, 16>;

// The inclusive prefix sum over the lanes, in segments, because barriers cost more than additions.
fn scan(lane: u32, value: u32) -> u32 {
    sums[lane] = value;
    workgroupBarrier();
    if lane < WORKGROUP / SEGMENT {
        var sum = 0u;
        for (var i = 0u; i < SEGMENT; i += 1u) {
            sum += sums[SEGMENT * lane + i];
            sums[SEGMENT * lane + i] = sum;
        }
        segments[lane] = sum;
    }
    workgroupBarrier();
    var sum = sums[lane];
    for (var i = 0u; i < lane / SEGMENT; i += 1u) {
        sum += segments[i];
    }
    workgroupBarrier();
    sums[lane] = sum;
    workgroupBarrier();
    return sum;
}
