// States in one byte: the words of four coordinates each, and how steps round into them. `src/recipe/state.rs` explains the format and is
// the same on the CPU. `noise` is 21 random bits for each coordinate.

import package::lib::noise::noise_of;
import package::tables::{Chunk, EACH};

const SEED: u32 = 0x8b1757a7u;
const FIELDS: vec4<u32> = vec4<u32>(0u, 6u, 12u, 18u);
const FIELD: vec4<u32> = vec4<u32>(0x3fu);
const NOT_FINITE: vec4<u32> = vec4<u32>(0x7f800000u);
const NAN_BITS: vec4<u32> = vec4<u32>(0x7fc00000u);
const CODE: vec4<u32> = vec4<u32>(21u);    // lowest bit of a code in an f32

// For a vector of the state.
fn noise_at(chunk: Chunk, vector: u32, step: u32) -> vec4<u32> {
    return noise_of(chunk.tensor, vec4<u32>(4u * vector - chunk.offset + chunk.index) + EACH, step, SEED);
}

// Of a state of the coordinates: those of another state begin 8 bits further on.
fn random_bits(noise: vec4<u32>, number: u32) -> vec4<u32> {
    let further = (noise << vec4<u32>(8u * number)) | (noise >> vec4<u32>((32u - 8u * number) % 32u));
    return further >> vec4<u32>(11u);
}

fn largest_of(sizes: vec4<u32>) -> u32 {
    return max(max(sizes.x, sizes.y), max(sizes.z, sizes.w));
}

fn word_of(exponent: u32, codes: vec4<u32>) -> u32 {
    let placed = codes << FIELDS;
    return (exponent << 24u) | (placed.x | placed.y) | (placed.z | placed.w);
}

fn pack_squares(x: vec4<f32>, noise: vec4<u32>) -> u32 {
    let bits = select(bitcast<vec4<u32>>(x), vec4<u32>(), x == vec4<f32>());    // also −0
    let finite = bits < NOT_FINITE;
    let sizes = select(vec4<u32>(), bits, finite);
    let exponent = clamp((largest_of(sizes) + 0x3fffffu) >> 23u, 16u, 254u);
    let zero = vec4<u32>((exponent - 15u) << 2u);
    let rounded = clamp(max((sizes + noise) >> CODE, zero) - zero, vec4<u32>(1u), vec4<u32>(62u));
    return word_of(exponent, select(FIELD, select(rounded, vec4<u32>(), sizes == vec4<u32>()), finite));
}

fn unpack_squares(word: u32) -> vec4<f32> {
    let codes = (vec4<u32>(word) >> FIELDS) & FIELD;
    let bits = vec4<u32>(((word >> 24u) - 15u) << 23u) + (codes << CODE);
    return bitcast<vec4<f32>>(select(select(bits, vec4<u32>(), codes == vec4<u32>()), NAN_BITS, codes == FIELD));
}

fn pack_signed(x: vec4<f32>, noise: vec4<u32>) -> u32 {
    let bits = bitcast<vec4<u32>>(x);
    let all = bits & vec4<u32>(0x7fffffffu);
    let finite = all < NOT_FINITE;
    let sizes = select(vec4<u32>(), all, finite);
    let exponent = clamp((largest_of(sizes) + 0x1fffffu) >> 23u, 40u, 254u);
    let zero = (exponent - 7u) << 2u;
    let least_bits = (zero + 1u) << 21u;
    // Below the least number, 0 or this number. The product is exact.
    let threshold = bitcast<f32>(least_bits) * (vec4<f32>(noise + vec4<u32>(1u)) / 2097152.0);
    let up = select(vec4<u32>(), vec4<u32>(1u), bitcast<vec4<f32>>(sizes) > threshold);
    let rounded = min(max((sizes + noise) >> CODE, vec4<u32>(zero)) - vec4<u32>(zero), vec4<u32>(31u));
    let codes = select(rounded, up, sizes < vec4<u32>(least_bits));
    let negative = select(vec4<u32>(), vec4<u32>(0x20u), (codes > vec4<u32>()) & (bits > all));
    return word_of(exponent, select(vec4<u32>(0x20u), codes | negative, finite));
}

fn unpack_signed(word: u32) -> vec4<f32> {
    let fields = (vec4<u32>(word) >> FIELDS) & FIELD;
    let codes = fields & vec4<u32>(0x1fu);
    let bits = (vec4<u32>(((word >> 24u) - 7u) << 23u) + (codes << CODE)) | ((fields & vec4<u32>(0x20u)) << vec4<u32>(26u));
    let finite = select(bits, vec4<u32>(), codes == vec4<u32>());
    return bitcast<vec4<f32>>(select(finite, NAN_BITS, fields == vec4<u32>(0x20u)));
}
