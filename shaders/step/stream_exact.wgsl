// `stream.wgsl` under exact `mgup`: before the high cut φ = α, after the low one φ = γ. Coordinates between the two keep their parameter
// and become candidates, which later kernels finish.

import package::{access::notes::{load_notes, notes}, next::next_of, policy::{factors, phi}, recall::{decided, note, recall, recall_key}};
import package::{sink::emit, state::{load_state, store_state}};
import package::lib::{coupled::coupled, flags::flags_of, gradients::read_grad, list::{append, list_of}};
import package::lib::{notes::{UNDECIDED, note_shift, note_word, unpack_notes}, order::{NAN_KEY, before, cut_in, key}};
import package::lib::skip::{chunk_at, scalars_of};
import package::tables::{EACH, Invocation, LANES, grid, linear, tensors};

var<workgroup> chosen: atomic<u32>;
var<workgroup> kept: atomic<u32>;           // candidates
var<workgroup> written: atomic<u32>;
var<workgroup> reserved: u32;
// Vectors that hold candidates: index, a bit for each candidate in the upper half, and directions. Lanes share them evenly. Each lane
// keeps those of its own vectors that no longer fit.
const SHARED: u32 = 256u;
var<workgroup> touched: atomic<u32>;
var<workgroup> vectors: array<u32, SHARED>;
var<workgroup> directions_found: array<vec4<f32>, SHARED>;

@compute @workgroup_size(32)
fn stream_exact(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&chosen, 0u);
        atomicStore(&kept, 0u);
        atomicStore(&written, 0u);
        atomicStore(&touched, 0u);
    }
    workgroupBarrier();
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        let own_factors = factors(chunk, s);
        let high = cut_in(chunk, tensors.each[chunk.tensor].high);
        let low = cut_in(chunk, tensors.each[chunk.tensor].low);
        var word = 0u;
        var counted = vec4<u32>(0u);
        var left = vec4<u32>(0u);
        var own = 0u;       // a bit for each of the lane's vectors that holds candidates and found no place
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let vector = chunk.offset / 4u + j;
            let g = read_grad(chunk, j, s);
            let next = next_of(chunk, vector, coupled(g, chunk, j, s), s);
            let score = next.direction * g;
            var found = key(score);
            if lanes < 4u { found = select(vec4<u32>(NAN_KEY), found, EACH < vec4<u32>(lanes)); }
            let index = chunk.index + 4u * j;
            let selected = before(found, index, high);
            let undecided = before(found, index, low) & !selected;
            store_state(chunk, vector, next.state);
            emit(chunk, j, s, phi(own_factors, selected, score), next.direction, selected, undecided);
            counted += select(vec4<u32>(0u), vec4<u32>(1u), selected);
            left += select(vec4<u32>(0u), vec4<u32>(1u), undecided);
            if any(undecided) {
                let place = atomicAdd(&touched, 1u);
                if place < SHARED {
                    vectors[place] = j | (flags_of(undecided) << 16u);
                    directions_found[place] = next.direction;
                } else {
                    own |= 1u << (j / LANES);
                }
            }

            word |= note(next.direction, found, selected, undecided) << note_shift(j);
            if note_shift(j) == 24u || 4u * (j + LANES) >= chunk.len {
                notes[note_word(chunk, j)] = word;
                word = 0u;
            }
        }
        atomicAdd(&chosen, (counted.x + counted.y) + (counted.z + counted.w));
        atomicAdd(&kept, (left.x + left.y) + (left.z + left.w));
        workgroupBarrier();
        if lane == 0u {
            atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&chosen));
            reserved = atomicAdd(&tensors.each[chunk.tensor].inside, atomicLoad(&kept));
        }
        workgroupBarrier();
        let list = list_of(chunk.tensor);
        let count = min(atomicLoad(&touched), SHARED);
        for (var i = lane; i < count; i += LANES) {
            let j = vectors[i] & 0xffffu;
            let g = read_grad(chunk, j, s);
            let flags = vectors[i] >> 16u;
            let slot = reserved + atomicAdd(&written, countOneBits(flags));
            append(list, slot, chunk.index + 4u * j, flags, key(directions_found[i] * g), directions_found[i]);
        }
        // Their directions follow once more from what this lane has stored.
        for (; own != 0u; own &= own - 1u) {
            let j = lane + LANES * firstTrailingBit(own);
            let lanes = min(4u, chunk.len - 4u * j);
            let g = read_grad(chunk, j, s);
            let noted = unpack_notes(load_notes(note_word(chunk, j)), j);
            let direction = recall(load_state(chunk, chunk.offset / 4u + j), g, noted, s);
            let inside = EACH < vec4<u32>(lanes);
            let found = select(vec4<u32>(NAN_KEY), recall_key(key(direction * g), noted), inside);
            let index = chunk.index + 4u * j;
            let decision = decided(noted, before(found, index, high), before(found, index, low));
            let flags = flags_of(decision == vec4<u32>(UNDECIDED));
            append(list, reserved + atomicAdd(&written, countOneBits(flags)), index, flags, found, direction);
        }
    }
}
