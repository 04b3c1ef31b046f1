// The step of coordinates whose factor is decided, where the base needs no more than their direction.

fn begin(chunk: Chunk, lane: u32) {
}

// Those that are undecided keep their parameter.
fn take(chunk: Chunk, vector: u32, row: Row, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let factor = select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), selected);
    let theta = load_param(chunk.param / 4u + vector, lanes);
    let moved = theta - rates_of(chunk, vector) * (row.decay * theta + row.step * (factor * direction));
    store_param(chunk.param / 4u + vector, lanes, select(moved, theta, undecided));
}
