// φ = c where s > 0, else 0, with c = 1 / max(mean(mask), 1e-3), or d / (Σ mask + 1)
// The mask and its count come from `score_mask.wgsl`: a lane's 16 coordinates of a chunk are 16 bits of one word.

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

struct Context {
    bits: u32,
    factor: f32,
}

fn context(chunk: Chunk, row: Row, lane: u32) -> Context {
    let d = f32(tensors.selections[chunk.tensor].numel);
    let positive = f32(atomicLoad(&tensors.selections[chunk.tensor].selected));
    let by_mean = 1.0 / max(positive / d, 1e-3);
    let by_count = d / (positive + 1.0);
    return Context(mask[mask_word(chunk, lane)], select(by_mean, by_count, row.count_normalizer == 1u));
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let bits = vec4<u32>(context.bits >> (4u * (vector / WORKGROUP))) & vec4<u32>(1u, 2u, 4u, 8u);
    return select(vec4<f32>(0.0), vec4<f32>(context.factor), bits != vec4<u32>(0u));
}
