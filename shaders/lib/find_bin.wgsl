// Where the K-th largest lies: every lane brings a population, in descending order of the keys; the scan tells how
// many lie before each lane.

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
