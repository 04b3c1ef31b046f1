// bf16 rounded up or down by 16 random bits, so that the mean stays. Finite values stay finite.

import package::access::half::narrow;

fn narrow_at_random(value: vec4<f32>, noise: vec4<u32>) -> vec4<u32> {
    let sixteen = vec4<u32>(16u);
    let source = bitcast<vec4<u32>>(value);
    let sum = (source + noise) >> sixteen;
    let overflows = (sum & vec4<u32>(0x7fffu)) == vec4<u32>(0x7f80u);
    let finite = (source & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u);
    return select(narrow(value), select(sum, source >> sixteen, overflows), finite);
}
