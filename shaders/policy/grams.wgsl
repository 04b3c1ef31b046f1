// φ = sign(s), with sign(0) = 0

import package::lib::order::{NAN_KEY, ZERO_KEY, key};
import package::tables::{Chunk, Scalars};

fn factors(chunk: Chunk, s: Scalars) -> vec2<f32> {
    return vec2<f32>(1.0, -1.0);
}

fn phi(factors: vec2<f32>, selected: vec4<bool>, score: vec4<f32>) -> vec4<f32> {
    let keys = key(score);
    let negative = select(vec4<f32>(factors.y), vec4<f32>(0.0), keys >= vec4<u32>(ZERO_KEY));
    let signs = select(negative, vec4<f32>(factors.x), keys > vec4<u32>(ZERO_KEY));
    return select(signs, vec4<f32>(0.0), keys == vec4<u32>(NAN_KEY));
}
