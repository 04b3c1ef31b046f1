// Candidates of a matrix base: the notes say which of them are selected.

import package::access::notes::notes;
import package::lib::{candidates::Candidate, notes::{SELECTED, UNDECIDED, note_shift, note_word}};
import package::tables::{CHUNK, Chunk, Scalars};

fn finish(piece: Chunk, s: Scalars, candidate: Candidate, selected: bool) {
    if selected {
        let at = candidate.index - piece.index;
        var chunk = piece;
        chunk.mask += at / CHUNK * (CHUNK / 16u);
        let vector = at % CHUNK / 4u;
        atomicXor(&notes[note_word(chunk, vector)], (UNDECIDED ^ SELECTED) << (note_shift(vector) + 2u * (at % 4u)));
    }
}
