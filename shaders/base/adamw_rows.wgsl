// m ← β1 m + (1−β1) g ;  u = m / (√v + ε), with one v for each row, which has moved on already

@group(1) @binding(2) var<storage, read_write> exp_avg: array<vec4<f32>>;
@group(1) @binding(3) var<storage, read_write> exp_avg_sq: array<f32>;

struct State {
    exp_avg: vec4<f32>,
    exp_avg_sq: vec4<f32>,
}

fn load_state(chunk: Chunk, vector: u32) -> State {
    let first = 4u * vector - chunk.offset + chunk.index;
    let index = vec4<u32>(first) + vec4<u32>(0u, 1u, 2u, 3u);
    let row = vec4<u32>(chunk.rows) + index / vec4<u32>(chunk.row_len);
    let v = vec4<f32>(exp_avg_sq[row.x], exp_avg_sq[row.y], exp_avg_sq[row.z], exp_avg_sq[row.w]);
    return State(exp_avg[vector], v);
}

fn store_state(vector: u32, state: State) {
    exp_avg[vector] = state.exp_avg;
}

struct Update {
    direction: vec4<f32>,
    state: State,
}

fn update(old: State, g: vec4<f32>, row: Row) -> Update {
    let m = row.beta1 * old.exp_avg + row.one_minus_beta1 * within_squares(g);
    return Update(m / (sqrt(old.exp_avg_sq) + row.eps), State(m, old.exp_avg_sq));
}
