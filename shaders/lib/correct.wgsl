// Corrects what the stream decided wrongly about a vector of a chunk; `at` is its place among the parameters.

fn correct(
    chunk: Chunk,
    vector: u32,
    at: u32,
    row: Row,
    direction: vec4<f32>,
    was: vec4<u32>,
    selected: vec4<bool>,
) {
    let lanes = min(4u, chunk.len - 4u * vector);
    let factor = select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), selected);
    let taken = select(vec4<f32>(row.gamma), vec4<f32>(row.alpha), was == vec4<u32>(SELECTED));
    let theta = load_param(at, lanes);
    let rate = rates_of(chunk, vector);
    let moved = theta - rate * (row.decay * theta + row.step * (factor * direction));
    let mended = theta + rate * (row.step * ((taken - factor) * direction));
    let decided = select(moved, mended, was != vec4<u32>(UNDECIDED));
    store_param(at, lanes, select(decided, theta, (was != vec4<u32>(UNDECIDED)) & (taken == factor)));
}
