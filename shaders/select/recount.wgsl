// Selection without a sample, for tensors whose bracket missed: rounds 1 to 3 count the next digit of the keys, rounds 4 to 6 of the tied
// indices, among the coordinates that share the digits found so far; the last dispatch corrects what the stream decided wrongly. One
// pipeline for all of it, so that every dispatch sees the same keys.

import package::{access::grad::load_grad, access::notes::load_notes, correct::correct, recall::{decided, recall, recall_key}};
import package::state::load_state;
import package::lib::{bins::{clear_bins, count_each, flush_bins}, gradients::clip, notes::{note_word, unpack_notes}};
import package::lib::{order::{NAN_KEY, before, cut_in, key}, skip::scalars_of};
import package::tables::{CHUNK, EACH, WORKGROUP, chunks, grid, tensors};

var<workgroup> work: u32;

@compute @workgroup_size(256)
fn recount(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Launched indirectly, where some drivers do not know the number of workgroups.
    let at = workgroup.y * grid.launch_x + workgroup.x;
    if lane == 0u {
        work = 0u;
        if at < grid.count {
            let tensor = chunks[grid.first + at].tensor;
            work = select(tensors.each[tensor].open, tensors.each[tensor].missed, grid.correct == 1u);
        }
    }
    if workgroupUniformLoad(&work) == 0u { return; }
    clear_bins(lane);
    let piece = chunks[grid.first + at];
    let s = scalars_of(piece);
    let high = cut_in(piece, tensors.each[piece.tensor].high);
    let low = cut_in(piece, tensors.each[piece.tensor].low);
    let digits = tensors.each[piece.tensor].found;
    let cut = cut_in(piece, digits);
    // Not by `grid.correct`: some drivers compile a kernel again for each value of a uniform that it branches on.
    let searching = tensors.each[piece.tensor].open > 0u;
    let round = max(tensors.each[piece.tensor].open, 1u) - 1u;
    let known = vec4<u32>(array<u32, 3>(31u, 21u, 10u)[round % 3u]);   // bits below the known digits
    let shift = array<u32, 3>(21u, 10u, 0u)[round % 3u];               // bits below the wanted digit
    let anything = vec4<bool>(round % 3u == 0u);
    let width = select(2047u, 1023u, round % 3u == 2u);
    for (var c = piece.part; c * CHUNK < piece.len; c += piece.parts) {
        var chunk = piece;
        let len = min(CHUNK, piece.len - c * CHUNK);
        chunk.mask += c * CHUNK / 16u;
        chunk.index += c * CHUNK;
        chunk.len = len;
        for (var j = lane; 4u * j < len; j += WORKGROUP) {
            let lanes = min(4u, len - 4u * j);
            let inside = EACH < vec4<u32>(lanes);
            let vector = c * CHUNK / 4u + j;
            let g = clip(load_grad(piece.grad / 4u + vector, lanes), s);
            let noted = unpack_notes(load_notes(note_word(chunk, j)), j);
            let direction = recall(load_state(piece, piece.offset / 4u + vector), g, noted, s);
            let found = select(vec4<u32>(NAN_KEY), recall_key(key(direction * g), noted), inside);
            let index = piece.index + 4u * vector;
            if !searching {
                let was = decided(noted, before(found, index, high), before(found, index, low));
                correct(chunk, j, piece.param / 4u + vector, s, direction, was, before(found, index, cut) & inside);
            } else {
                var value = found;
                var wanted = found != vec4<u32>(NAN_KEY);
                var prefix = vec4<u32>(digits.key);
                if round >= 3u {
                    value = ~(vec4<u32>(index) + EACH);
                    wanted &= found == vec4<u32>(digits.key);
                    prefix = vec4<u32>(digits.limit);
                }
                wanted &= anything | ((value >> known) == (prefix >> known));
                let next = (value >> vec4<u32>(shift)) & vec4<u32>(width);
                count_each(next, 0u, wanted);
            }
        }
    }
    flush_bins(lane, tensors.each[piece.tensor].histogram, 1u);
}
