// A master in two parts: the bf16 parameter, which is the master rounded half away from 0, and the 16 bits below it.

const BELOW: vec4<u32> = vec4<u32>(0xffffu);

fn joined(halves: vec4<u32>, lower: vec4<u32>) -> vec4<f32> {
    // A parameter of 0 that was written by others has the lower half of another master.
    let foreign = ((halves & vec4<u32>(0x7fffu)) == vec4<u32>()) & (lower >= vec4<u32>(0x8000u));
    let below = select(lower, vec4<u32>(), foreign);
    let above = (halves - (below >> vec4<u32>(15u))) & BELOW;
    return bitcast<vec4<f32>>((above << vec4<u32>(16u)) | below);
}

fn half_of(value: vec4<f32>) -> vec4<u32> {
    let bits = bitcast<vec4<u32>>(value);
    return ((bits >> vec4<u32>(16u)) + ((bits >> vec4<u32>(15u)) & vec4<u32>(1u))) & BELOW;
}

fn below_of(value: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(value) & BELOW;
}
