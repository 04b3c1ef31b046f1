// Parameters in bf16 without masters, four coordinates at a time.

import package::access::half::widen;

@group(1) @binding(0) var<storage, read_write> param: array<vec2<u32>>;

fn load_param(vector: u32, lanes: u32) -> vec4<f32> {
    let words = param[vector];
    return widen(vec4<u32>(words.x & 0xffffu, words.x >> 16u, words.y & 0xffffu, words.y >> 16u));
}

fn store_bits(vector: u32, lanes: u32, halves: vec4<u32>) {
    param[vector] = vec2<u32>(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
