// Parameters in bf16 without masters, whose number is not a multiple of four, in a caller's buffer: words after that of the last coordinate
// are not ours to read or write.

import package::access::half::widen;
import package::tables::EACH;

@group(1) @binding(0) var<storage, read_write> param: array<u32>;

fn load_param(vector: u32, lanes: u32) -> vec4<f32> {
    let first = param[2u * vector];
    var second = 0u;
    if lanes > 2u { second = param[2u * vector + 1u]; }
    let halves = vec4<u32>(first, first >> 16u, second, second >> 16u) & vec4<u32>(0xffffu);
    return widen(select(vec4<u32>(), halves, EACH < vec4<u32>(lanes)));
}

fn store_bits(vector: u32, lanes: u32, halves: vec4<u32>) {
    param[2u * vector] = halves.x | (halves.y << 16u);
    if lanes > 2u { param[2u * vector + 1u] = halves.z | (halves.w << 16u); }
}
