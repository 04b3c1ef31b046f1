// Σ over the chunks of a tensor, of their sums of squares from `norms` on; or, of values multiplied by 2⁻⁹⁶, where it is far.

import package::lib::{far::{far_sum, four_words, near_sum}, sum::sum_over_lanes};
import package::tables::{CHUNK, WORKGROUP, tensors};

fn total_of(lane: u32, norms: u32, tensor: u32, far: bool) -> f32 {
    let first = norms + tensors.each[tensor].first_chunk;
    let count = (tensors.each[tensor].numel + CHUNK - 1u) / CHUNK;
    var squares = 0.0;
    for (var c = lane; c < count; c += 4u * WORKGROUP) {
        let loaded = four_words(first, c, count);
        for (var i = 0u; i < 4u; i += 1u) {
            squares += select(near_sum(loaded[i]), far_sum(loaded[i]), far);
        }
    }
    let total = sum_over_lanes(lane, squares);
    // Another sum may follow.
    workgroupBarrier();
    return total;
}
