// Σ over the first 32 lanes, in a fixed order: the same values give the same bits. One barrier, because every lane waits at each.

import package::tables::LANES;

var<workgroup> terms: array<f32, 32>;

// Valid in the first lane.
fn sum_few(lane: u32, value: f32) -> f32 {
    if lane < LANES { terms[lane] = value; }
    workgroupBarrier();
    var sums = vec4<f32>();
    if lane == 0u {
        for (var i = 0u; i < LANES; i += 4u) {
            sums += vec4<f32>(terms[i], terms[i + 1u], terms[i + 2u], terms[i + 3u]);
        }
    }
    return (sums.x + sums.y) + (sums.z + sums.w);
}

fn total(squares: vec4<f32>) -> f32 {
    return (squares.x + squares.y) + (squares.z + squares.w);
}
