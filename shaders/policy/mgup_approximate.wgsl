// φ = α before the cut that the sample found, else γ: approximate selection, which counts what it selects.

var<workgroup> chosen: atomic<u32>;
var<private> counted: vec4<u32>;

struct Context {
    cut: ChunkCut,
}

fn context(chunk: Chunk, row: Row) -> Context {
    counted = vec4<u32>(0u);
    return Context(cut_in(chunk, tensors.each[chunk.tensor].high));
}

fn phi(context: Context, score: vec4<f32>, chunk: Chunk, vector: u32, row: Row) -> vec4<f32> {
    var found = key(score);
    if 4u * vector + 4u > chunk.len {
        let within = 4u * vector + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len);
        found = select(vec4<u32>(NAN_KEY), found, within);
    }
    let selected = before(found, chunk.index + 4u * vector, context.cut);
    counted += select(vec4<u32>(0u), vec4<u32>(1u), selected);
    return select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), selected);
}

fn conclude(chunk: Chunk, lane: u32) {
    if lane == 0u {
        atomicStore(&chosen, 0u);
    }
    workgroupBarrier();
    atomicAdd(&chosen, (counted.x + counted.y) + (counted.z + counted.w));
    workgroupBarrier();
    if lane == 0u {
        atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&chosen));
    }
}
