// A cut through the coordinates of a tensor in the order of selection: by key, downwards, then by index, upwards. None lie
// before (0xffffffff, 0), all but NaN before (0, 0).

// The cut as a chunk sees it: it goes through the ties of few chunks.
struct ChunkCut {
    above: u32,     // a coordinate lies before the cut if its key is greater,
    tied: bool,     // or, in a chunk where this holds,
    cut: Cut,       // if it is tied and its index is less.
}

fn cut_in(chunk: Chunk, cut: Cut) -> ChunkCut {
    let whole = chunk.index + chunk.len <= cut.limit;
    let tied = chunk.index < cut.limit && !whole;
    return ChunkCut(select(cut.key, cut.key - 1u, whole), tied, cut);
}

fn before(found: vec4<u32>, index: u32, cut: ChunkCut) -> vec4<bool> {
    var result = found > vec4<u32>(cut.above);
    if cut.tied {
        let less = vec4<u32>(index) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(cut.cut.limit);
        result |= (found == vec4<u32>(cut.cut.key)) & less;
    }
    return result;
}

fn ones(flags: vec4<bool>) -> u32 {
    let each = select(vec4<u32>(0u), vec4<u32>(1u), flags);
    return (each.x + each.y) + (each.z + each.w);
}
