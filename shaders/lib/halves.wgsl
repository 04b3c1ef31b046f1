// Four values of two bytes each in two words, the first of each pair in the lower half.

import package::access::half::widen;

fn unpacked(words: vec2<u32>) -> vec4<u32> {
    return vec4<u32>(words.x, words.x >> 16u, words.y, words.y >> 16u) & vec4<u32>(0xffffu);
}

fn widened(words: vec2<u32>) -> vec4<f32> {
    return widen(unpacked(words));
}

fn packed(halves: vec4<u32>) -> vec2<u32> {
    return vec2<u32>(halves.x | (halves.y << 16u), halves.z | (halves.w << 16u));
}
