// The step of single coordinates that the stream left as they were. Parameters are reached one at a time, because
// their neighbours in a vector may be another lane's.

@group(1) @binding(0) var<storage, read_write> param: array<f32>;

fn finish(piece: Chunk, row: Row, candidate: Candidate, selected: bool) {
    let factor = select(row.gamma, row.alpha, selected);
    let at = piece.param + (candidate.index - piece.index);
    let theta = param[at];
    let rate = rate_of(piece.tensor, candidate.index);
    param[at] = theta - rate * (row.decay * theta + row.step * (factor * candidate.direction));
}
