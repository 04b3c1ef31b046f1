// Sums of squares beyond f32's range: of values multiplied by 2⁻⁹⁶. The word of such a sum lacks the sign bit that every other has.

import package::tables::{WORKGROUP, counters};

const FAR: f32 = 0x1p-96f;
const PRESENT: u32 = 0x80000000u;
const EXPONENT: u32 = 0x7f800000u;

// The words of a lane's next four sums, 0 after the last. Four loads at once, because each takes long.
fn four_words(first: u32, c: u32, count: u32) -> vec4<u32> {
    let at = vec4<u32>(c) + vec4<u32>(0u, WORKGROUP, 2u * WORKGROUP, 3u * WORKGROUP);
    let place = vec4<u32>(first) + min(at, vec4<u32>(count - 1u));
    let near = vec2<u32>(atomicLoad(&counters[place.x]), atomicLoad(&counters[place.y]));
    let others = vec2<u32>(atomicLoad(&counters[place.z]), atomicLoad(&counters[place.w]));
    return select(vec4<u32>(0u), vec4<u32>(near, others), at < vec4<u32>(count));
}

fn is_far(word: u32) -> bool {
    return word != 0u && (word & PRESENT) == 0u;
}

// The sum of a word as it is: infinite if it is beyond the range.
fn near_sum(word: u32) -> f32 {
    return bitcast<f32>(select(word & ~PRESENT, EXPONENT, is_far(word)));
}

// The sum of a word of values multiplied by 2⁻⁹⁶. Their squares' 2⁻¹⁹² is taken from the exponent: f32 does not hold it, and a compiler may
// multiply constants first. Sums below 2⁶⁶ do not matter beside one beyond 2¹²⁸. NaN stays NaN.
fn far_sum(word: u32) -> f32 {
    let near = word & ~PRESENT;
    let small = select(0u, near - (192u << 23u), near >= (193u << 23u));
    return bitcast<f32>(select(small, word, is_far(word) || near > EXPONENT));
}
