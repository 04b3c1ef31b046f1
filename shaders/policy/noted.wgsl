// φ = α where exact selection noted so before the orthogonalisation, else γ.

struct Context {
    unused: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(0u);
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let noted = unpack_notes(load_notes(note_word(chunk, vector)), vector);
    return select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), noted == vec4<u32>(SELECTED));
}

fn conclude(chunk: Chunk, lane: u32) {
}
