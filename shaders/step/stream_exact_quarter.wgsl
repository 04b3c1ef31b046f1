// `stream_exact.wgsl` on GPUs: a quarter of a chunk per workgroup, one vector per lane, which keeps its candidates in registers until their
// places are known. The order of candidates does not matter, so lanes take places as they come.

import package::{access::notes::notes, next::next_of, policy::{factors, phi}, recall::note};
import package::{sink::emit, state::store_state};
import package::lib::{coupled::coupled, flags::{flags_of, ones}, gradients::read_grad, list::{append, list_of}};
import package::lib::{notes::{note_shift, note_word}, order::{NAN_KEY, before, cut_in, key}, skip::{chunk_at, scalars_of}};
import package::tables::{EACH, Invocation, LANES, grid, linear, tensors};

const WORDS: u32 = 2u * LANES;              // of notes

var<workgroup> chosen: atomic<u32>;
var<workgroup> kept: atomic<u32>;           // candidates
var<workgroup> reserved: u32;
var<workgroup> words: array<atomic<u32>, WORDS>;

@compute @workgroup_size(256)
fn stream_exact_quarter(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u {
        atomicStore(&chosen, 0u);
        atomicStore(&kept, 0u);
    }
    if lane < WORDS { atomicStore(&words[lane], 0u); }
    workgroupBarrier();
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        let high = cut_in(chunk, tensors.each[chunk.tensor].high);
        let low = cut_in(chunk, tensors.each[chunk.tensor].low);
        var found = vec4<u32>(NAN_KEY);
        var direction = vec4<f32>();
        var flags = 0u;
        var place = 0u;
        if 4u * lane < chunk.len {
            let vector = chunk.offset / 4u + lane;
            let g = read_grad(chunk, lane, s);
            let next = next_of(chunk, vector, coupled(g, chunk, lane, s), s);
            direction = next.direction;
            let score = direction * g;
            found = select(found, key(score), 4u * lane + EACH < vec4<u32>(chunk.len));
            let index = chunk.index + 4u * lane;
            let selected = before(found, index, high);
            let undecided = before(found, index, low) & !selected;
            emit(chunk, lane, s, phi(factors(chunk, s), selected, score), direction, selected, undecided);
            store_state(chunk, vector, next.state);
            let word = lane / (4u * LANES) * LANES + lane % LANES;
            atomicOr(&words[word], note(direction, found, selected, undecided) << note_shift(lane));
            atomicAdd(&chosen, ones(selected));
            flags = flags_of(undecided);
            if flags > 0u { place = atomicAdd(&kept, countOneBits(flags)); }
        }
        workgroupBarrier();
        if lane == 0u {
            atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&chosen));
            let count = atomicLoad(&kept);
            if count > 0u { reserved = atomicAdd(&tensors.each[chunk.tensor].inside, count); }
        }
        let vector = lane / LANES * 4u * LANES + lane % LANES;  // the first of a word
        if lane < WORDS && 4u * vector < chunk.len { notes[note_word(chunk, vector)] = atomicLoad(&words[lane]); }
        workgroupBarrier();
        if flags > 0u {
            append(list_of(chunk.tensor), reserved + place, chunk.index + 4u * lane, flags, found, direction);
        }
    }
}
