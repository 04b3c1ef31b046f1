// The coordinates of a piece once more, after its bracket missed: counts a digit of theirs or, once the cut is known, corrects what the stream
// decided wrongly. Both in one place, so that both see the same keys.

import package::{access::grad::load_grad, access::notes::load_notes, correct::correct, recall::{decided, recall, recall_key}};
import package::state::load_state;
import package::lib::{gradients::clip, notes::{note_word, unpack_notes}, order::{ChunkCut, NAN_KEY, before, cut_in, key}};
import package::lib::search::{DIGITS, Search, count_digits};
import package::tables::{CHUNK, Chunk, EACH, Scalars, WORKGROUP, tensors};

struct Cuts {
    high: ChunkCut,
    low: ChunkCut,
    found: ChunkCut,
}

fn visit(piece: Chunk, vector: u32, s: Scalars, sought: Search, cuts: Cuts) {
    if 4u * vector >= piece.len { return; }
    let first = vector / (CHUNK / 4u) * CHUNK;
    let j = vector - first / 4u;
    var chunk = piece;
    chunk.mask += first / 16u;
    chunk.index += first;
    chunk.len = min(CHUNK, piece.len - first);
    let lanes = min(4u, chunk.len - 4u * j);
    let inside = EACH < vec4<u32>(lanes);
    let g = clip(load_grad(piece.grad / 4u + vector, lanes), s);
    let noted = unpack_notes(load_notes(note_word(chunk, j)), j);
    let direction = recall(load_state(piece, piece.offset / 4u + vector), g, noted, s);
    let found = select(vec4<u32>(NAN_KEY), recall_key(key(direction * g), noted), inside);
    let index = piece.index + 4u * vector;
    if sought.digit == DIGITS {
        let was = decided(noted, before(found, index, cuts.high), before(found, index, cuts.low));
        correct(chunk, j, piece, vector, s, direction, was, before(found, index, cuts.found) & inside);
    } else {
        count_digits(sought, found, vec4<u32>(index) + EACH);
    }
}

// Two vectors per round: llvmpipe ends all loops of an invocation after 65,535 rounds, and GPUs wait for loads.
fn revisit(piece: Chunk, lane: u32, s: Scalars, sought: Search) {
    let high = cut_in(piece, tensors.each[piece.tensor].high);
    let cuts = Cuts(high, cut_in(piece, tensors.each[piece.tensor].low), cut_in(piece, sought.cut));
    for (var vector = 2u * WORKGROUP * piece.part + lane; 4u * vector < piece.len; vector += 2u * WORKGROUP * piece.parts) {
        visit(piece, vector, s, sought, cuts);
        visit(piece, vector + WORKGROUP, s, sought, cuts);
    }
}
