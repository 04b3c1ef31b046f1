// φ = c where s > 0, else 0, with c = 1 / max(mean(mask), 1e-3), or d / (Σ mask + 1)
// The mask and its count come from `score_mask.wgsl`: a bit a coordinate.

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

struct Context {
    factor: f32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    let d = f32(tensors.each[chunk.tensor].numel);
    let positive = f32(atomicLoad(&tensors.each[chunk.tensor].selected));
    let by_mean = 1.0 / max(positive / d, 1e-3);
    let by_count = d / (positive + 1.0);
    return Context(select(by_mean, by_count, row.count_normalizer == 1u));
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let word = mask[mask_word(chunk, vector)];
    let bits = vec4<u32>(word >> mask_shift(vector)) & vec4<u32>(1u, 2u, 4u, 8u);
    return select(vec4<f32>(0.0), vec4<f32>(context.factor), bits != vec4<u32>(0u));
}

fn conclude(chunk: Chunk, lane: u32) {
}
