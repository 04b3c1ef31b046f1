// The order of selection: by the key of a score, downwards, then by index, upwards; and cuts through it.
//   s < s'  ⇔  key(s) < key(s')     |s| < 2^-126 is zero     NaN → 0, below every other key
// A cut lies after the keys above its own and those at it with an index below its limit. None lie before (0xffffffff, 0), all but NaN
// before (0, 0).

import package::tables::{Chunk, Cut, EACH};

const ZERO_KEY: u32 = 0x80000000u;
const NAN_KEY: u32 = 0u;

// A map to integers, so that selection never compares floats.
fn key(score: vec4<f32>) -> vec4<u32> {
    // Bits, because a compiler may assume that NaN does not occur, and may flush subnormals or not.
    let bits = bitcast<vec4<i32>>(score);
    let magnitude = bits & vec4<i32>(0x7fffffff);
    let ordered = bitcast<vec4<u32>>(bits ^ ((bits >> vec4<u32>(31u)) | vec4<i32>(-0x7fffffff - 1)));
    let number = select(ordered, vec4<u32>(ZERO_KEY), magnitude < vec4<i32>(0x00800000));
    return select(number, vec4<u32>(NAN_KEY), magnitude > vec4<i32>(0x7f800000));
}

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
        let less = vec4<u32>(index) + EACH < vec4<u32>(cut.cut.limit);
        result |= (found == vec4<u32>(cut.cut.key)) & less;
    }
    return result;
}
