// A histogram spread over the lanes, from the highest bin down: lane 0 has the highest 8.

const BINS_PER_LANE: u32 = 8u;

fn highest_bin(lane: u32) -> u32 {
    return BINS - 1u - BINS_PER_LANE * lane;
}

// Of a histogram among the counters, which it clears.
fn take_populations(histogram: u32, lane: u32) -> array<u32, 8> {
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        let at = histogram + highest_bin(lane) - b;
        populations[b] = atomicLoad(&counters[at]);
        atomicStore(&counters[at], 0u);
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
