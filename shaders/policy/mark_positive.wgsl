// The mask of the positive scores.

struct Context {
    unused: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(0u);
}

fn mark(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32) {
    mark_found(key(score) > vec4<u32>(ZERO_KEY), chunk, vector);
}
