// Σ over the lanes, in a fixed tree: the same values give the same bits.

import package::tables::WORKGROUP;

var<workgroup> terms: array<f32, 256>;

fn sum_over_lanes(lane: u32, value: f32) -> f32 {
    terms[lane] = value;
    workgroupBarrier();
    for (var stride = WORKGROUP / 2u; stride > 0u; stride /= 2u) {
        if lane < stride { terms[lane] += terms[lane + stride]; }
        workgroupBarrier();
    }
    return terms[0];
}
