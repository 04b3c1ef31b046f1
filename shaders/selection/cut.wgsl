// Selects the scores before the cut that the sample found, and counts them: approximate selection.

import package::lib::order::{ChunkCut, NAN_KEY, before, cut_in, key};
import package::tables::{Chunk, EACH, tensors};

var<workgroup> chosen: atomic<u32>;
var<private> counted_selected: vec4<u32>;
var<private> high: ChunkCut;

fn begin_selection(chunk: Chunk) {
    counted_selected = vec4<u32>(0u);
    high = cut_in(chunk, tensors.each[chunk.tensor].high);
}

fn selects(score: vec4<f32>, chunk: Chunk, vector: u32) -> vec4<bool> {
    var found = key(score);
    if 4u * vector + 4u > chunk.len {
        found = select(vec4<u32>(NAN_KEY), found, 4u * vector + EACH < vec4<u32>(chunk.len));
    }
    let selected = before(found, chunk.index + 4u * vector, high);
    counted_selected += select(vec4<u32>(0u), vec4<u32>(1u), selected);
    return selected;
}

fn end_selection(chunk: Chunk, lane: u32) {
    if lane == 0u { atomicStore(&chosen, 0u); }
    workgroupBarrier();
    atomicAdd(&chosen, (counted_selected.x + counted_selected.y) + (counted_selected.z + counted_selected.w));
    workgroupBarrier();
    if lane == 0u { atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&chosen)); }
}
