// f16, with integers: WGSL leaves open how pack2x16float rounds and whether subnormals survive. To the nearest, ties to even.

fn widen(bits: vec4<u32>) -> vec4<f32> {
    let magnitude = bits & vec4<u32>(0x7fffu);
    // Exponents move from a bias of 15 to one of 127; those of infinity and NaN to their highest.
    let bias = select(vec4<u32>(112u << 23u), vec4<u32>(224u << 23u), magnitude >= vec4<u32>(0x7c00u));
    let normal = (magnitude << vec4<u32>(13u)) + bias;
    let subnormal = bitcast<vec4<u32>>(vec4<f32>(magnitude) * 5.9604644775390625e-8);
    let found = select(normal, subnormal, magnitude < vec4<u32>(0x400u));
    return bitcast<vec4<f32>>(found | ((bits & vec4<u32>(0x8000u)) << vec4<u32>(16u)));
}

fn narrow(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let rebiased = magnitude - vec4<u32>(112u << 23u);
    let normal = (rebiased + vec4<u32>(0xfffu) + ((rebiased >> vec4<u32>(13u)) & vec4<u32>(1u))) >> vec4<u32>(13u);
    // Below 2⁻¹⁴: the significand in units of 2⁻²⁴.
    let shift = vec4<u32>(126u) - clamp(magnitude >> vec4<u32>(23u), vec4<u32>(101u), vec4<u32>(112u));
    let significand = (magnitude & vec4<u32>(0x7fffffu)) | vec4<u32>(0x800000u);
    let whole = significand >> shift;
    let left = significand - (whole << shift);
    let middle = vec4<u32>(1u) << (shift - vec4<u32>(1u));
    let up = (left > middle) | ((left == middle) & ((whole & vec4<u32>(1u)) == vec4<u32>(1u)));
    let small = whole + select(vec4<u32>(0u), vec4<u32>(1u), up);
    let subnormal = select(small, vec4<u32>(0u), magnitude < vec4<u32>(0x33000000u));
    var found = select(normal, subnormal, magnitude < vec4<u32>(0x38800000u));
    found = select(found, vec4<u32>(0x7c00u), magnitude >= vec4<u32>(0x477ff000u));
    found = select(found, vec4<u32>(0x7e00u), magnitude > vec4<u32>(0x7f800000u));
    return found | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
}
