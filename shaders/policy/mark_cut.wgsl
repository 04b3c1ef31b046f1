// The mask of the scores before the cut that the sample found: approximate selection.

struct Context {
    cut: ChunkCut,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(cut_in(chunk, tensors.each[chunk.tensor].high));
}

fn mark(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32) {
    var found = key(score);
    let within = 4u * vector + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len);
    found = select(vec4<u32>(NAN_KEY), found, within);
    mark_found(before(found, chunk.index + 4u * vector, context.cut), chunk, vector);
}
