// φ = sign(s), with sign(0) = 0

struct Context {
    unused: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(0u);
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let keys = key(score);
    let negative = select(vec4<f32>(-1.0), vec4<f32>(0.0), keys >= vec4<u32>(ZERO_KEY));
    let signs = select(negative, vec4<f32>(1.0), keys > vec4<u32>(ZERO_KEY));
    return select(signs, vec4<f32>(0.0), keys == vec4<u32>(NAN_KEY));
}

fn conclude(chunk: Chunk, lane: u32) {
}
