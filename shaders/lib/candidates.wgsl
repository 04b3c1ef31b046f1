// Candidates: coordinates that a later kernel finishes, three words each among the counters.

import package::tables::{Chunk, counters};

struct Candidate {
    index: u32,         // in the tensor
    key: u32,           // of its score
    direction: f32,
}

fn write_candidate(list: u32, slot: u32, candidate: Candidate) {
    atomicStore(&counters[list + 3u * slot], candidate.index);
    atomicStore(&counters[list + 3u * slot + 1u], candidate.key);
    atomicStore(&counters[list + 3u * slot + 2u], bitcast<u32>(candidate.direction));
}

fn read_candidate(list: u32, slot: u32) -> Candidate {
    return Candidate(
        atomicLoad(&counters[list + 3u * slot]),
        atomicLoad(&counters[list + 3u * slot + 1u]),
        bitcast<f32>(atomicLoad(&counters[list + 3u * slot + 2u])),
    );
}

// Whether a candidate lies in this part of its tensor: a tensor may span pages.
fn lies_in(piece: Chunk, candidate: Candidate) -> bool {
    return candidate.index - piece.index < piece.len;
}
