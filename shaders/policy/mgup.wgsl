// φ = α for the K largest scores of the tensor, ties to the lower index, else γ
// The keys come from `score_keys.wgsl`, the threshold from the selection kernels.

@group(2) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;

struct Context {
    threshold: u32,
    tie_limit: u32,
}

fn context(chunk: Chunk, row: Row) -> Context {
    return Context(tensors.selections[chunk.tensor].threshold, tensors.selections[chunk.tensor].tie_limit);
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    let found = keys[chunk.offset / 4u + vector];
    let index = vec4<u32>(chunk.index + 4u * vector) + vec4<u32>(0u, 1u, 2u, 3u);
    let tied = (found == vec4<u32>(context.threshold)) & (index < vec4<u32>(context.tie_limit));
    let selected = (found > vec4<u32>(context.threshold)) | tied;
    return select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), selected);
}
