// Where the K-th largest lies: every lane brings a population, in descending order of the keys; the scan tells how
// many lie before each lane.

var<workgroup> sums: array<u32, 256>;

// The inclusive prefix sum over the lanes.
fn scan(lane: u32, value: u32) -> u32 {
    sums[lane] = value;
    workgroupBarrier();
    for (var stride = 1u; stride < WORKGROUP; stride *= 2u) {
        var before = 0u;
        if lane >= stride {
            before = sums[lane - stride];
        }
        workgroupBarrier();
        sums[lane] += before;
        workgroupBarrier();
    }
    return sums[lane];
}
