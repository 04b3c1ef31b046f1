// Σ over a chunk, on a GPU: a lane adds up four vectors, each 32 after the last. Then 32 lanes add up eight sums each.

import package::lib::sum_few::sum_few;
import package::tables::{Chunk, LANES};

const SUM_LANES: u32 = 256u;

var<workgroup> shares: array<f32, 256>;

fn first_vector(lane: u32) -> u32 {
    return lane / LANES * 4u * LANES + lane % LANES;
}

fn end_of_vectors(chunk: Chunk, lane: u32) -> u32 {
    return min((lane / LANES + 1u) * 4u * LANES, (chunk.len + 3u) / 4u);
}

fn ends_share(vector: u32) -> bool {
    return false;
}

// Valid in the first lane.
fn sum_over_chunk(lane: u32, value: f32) -> f32 {
    shares[lane] = value;
    workgroupBarrier();
    var sum = 0.0;
    if lane < LANES {
        for (var share = lane; share < SUM_LANES; share += LANES) {
            sum += shares[share];
        }
    }
    return sum_few(lane, sum);
}
