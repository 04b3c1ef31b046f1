// Sums over the steps of a chunk's coordinates.

import package::lib::sum_chunk::{Sum, add_vector, sum_over_chunk};

// Whether steps are measured. They are not where a direction is found in between, or where more than a decay is added to them.
override LENGTHS: bool = false;

// Σ |δ|, Σ δ² and Σ δ g of steps δ.
struct Lengths { l1: Sum, l2: Sum, descent: Sum }

fn add_step(sums: Lengths, vector: u32, delta: vec4<f32>, g: vec4<f32>) -> Lengths {
    return Lengths(
        add_vector(sums.l1, vector, abs(delta)),
        add_vector(sums.l2, vector, delta * delta),
        add_vector(sums.descent, vector, delta * g),
    );
}

// Valid in the first lane, which has read the last sum before the others write the next.
fn lengths_over_chunk(lane: u32, own: Lengths) -> vec3<f32> {
    if !LENGTHS { return vec3<f32>(); }
    workgroupBarrier();
    let l1 = sum_over_chunk(lane, own.l1);
    workgroupBarrier();
    let l2 = sum_over_chunk(lane, own.l2);
    workgroupBarrier();
    return vec3<f32>(l1, l2, sum_over_chunk(lane, own.descent));
}
