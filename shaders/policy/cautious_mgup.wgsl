// φ = α where s > 0, else γ

struct Context {
    unused: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(0u);
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    return select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), key(score) > vec4<u32>(ZERO_KEY));
}

fn conclude(chunk: Chunk, lane: u32) {
}
