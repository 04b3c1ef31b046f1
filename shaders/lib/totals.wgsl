// Sums over the lanes, one barrier each: a sum has one of three places, and clears that of the next but one.

var<workgroup> totals: array<atomic<u32>, 3>;

fn clear_totals(lane: u32) {
    if lane < 3u { atomicStore(&totals[lane], 0u); }
    workgroupBarrier();
}

fn total(lane: u32, turn: u32, mine: u32) -> u32 {
    if mine > 0u { atomicAdd(&totals[turn % 3u], mine); }
    workgroupBarrier();
    if lane == 0u { atomicStore(&totals[(turn + 2u) % 3u], 0u); }
    return atomicLoad(&totals[turn % 3u]);
}
