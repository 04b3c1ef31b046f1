// φ = α where the mask is set, else γ. The mask is from before the orthogonalisation: a bit a coordinate.

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

struct Context {
    unused: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(0u);
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let bits = vec4<u32>(mask[mask_word(chunk, vector)] >> mask_shift(vector)) & vec4<u32>(1u, 2u, 4u, 8u);
    return select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), bits != vec4<u32>(0u));
}

fn conclude(chunk: Chunk, lane: u32) {
}
