// key(s): an order-preserving map from a score to u32, so that selection compares integers and never floats.
//   s < s'  ⇔  key(s) < key(s')     |s| < 2^-126 is zero     NaN → 0, below every other key

const ZERO_KEY: u32 = 0x80000000u;
const NAN_KEY: u32 = 0u;

fn key(score: vec4<f32>) -> vec4<u32> {
    // Bits, because a compiler may assume that NaN does not occur, and may flush subnormals or not.
    let bits = bitcast<vec4<i32>>(score);
    let magnitude = bits & vec4<i32>(0x7fffffff);
    let ordered = bitcast<vec4<u32>>(bits ^ ((bits >> vec4<u32>(31u)) | vec4<i32>(-0x7fffffff - 1)));
    let number = select(ordered, vec4<u32>(ZERO_KEY), magnitude < vec4<i32>(0x00800000));
    return select(number, vec4<u32>(NAN_KEY), magnitude > vec4<i32>(0x7f800000));
}
