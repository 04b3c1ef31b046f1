// Σ over a chunk, on a CPU: a lane has every 32nd vector. It adds up four of them at a time, so that the order is that of
// `sum_chunk_wide.wgsl`, and both give the same bits.

import package::lib::sum_few::sum_few;
import package::tables::{Chunk, LANES};

const SUM_LANES: u32 = 32u;

fn first_vector(lane: u32) -> u32 {
    return lane;
}

fn end_of_vectors(chunk: Chunk, lane: u32) -> u32 {
    return (chunk.len + 3u) / 4u;
}

// Whether a vector is the last of four.
fn ends_share(vector: u32) -> bool {
    return vector / LANES % 4u == 3u;
}

// Valid in the first lane.
fn sum_over_chunk(lane: u32, value: f32) -> f32 {
    return sum_few(lane, value);
}
