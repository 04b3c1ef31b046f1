// Parameters in bf16 without masters, where the halves of a word may be those of two lanes.

import package::access::half::widen;
import package::tables::EACH;

@group(1) @binding(0) var<storage, read_write> param: array<atomic<u32>>;

fn load_param(vector: u32, lanes: u32) -> vec4<f32> {
    let first = atomicLoad(&param[2u * vector]);
    var second = 0u;
    if lanes > 2u { second = atomicLoad(&param[2u * vector + 1u]); }
    let halves = vec4<u32>(first, first >> 16u, second, second >> 16u) & vec4<u32>(0xffffu);
    return widen(select(vec4<u32>(), halves, EACH < vec4<u32>(lanes)));
}

fn store_bits(vector: u32, lanes: u32, halves: vec4<u32>) {
    atomicStore(&param[2u * vector], halves.x | (halves.y << 16u));
    if lanes > 2u { atomicStore(&param[2u * vector + 1u], halves.z | (halves.w << 16u)); }
}
