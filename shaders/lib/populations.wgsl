// A tensor's 2,048 bins spread over the lanes, from the highest key down: lane 0 has the highest 8.

const BINS_PER_LANE: u32 = 8u;

@group(3) @binding(0) var<storage, read_write> counters: array<atomic<u32>>;

fn highest_bin(lane: u32) -> u32 {
    return 2047u - BINS_PER_LANE * lane;
}

fn take_populations(tensor: u32, lane: u32) -> array<u32, 8> {
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        let at = tensors.selections[tensor].histogram + highest_bin(lane) - b;
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
