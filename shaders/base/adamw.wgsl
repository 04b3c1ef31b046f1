// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g² ;  u = m / (√v + ε)

@group(1) @binding(2) var<storage, read_write> exp_avg: array<vec4<f32>>;
@group(1) @binding(3) var<storage, read_write> exp_avg_sq: array<vec4<f32>>;

struct State {
    exp_avg: vec4<f32>,
    exp_avg_sq: vec4<f32>,
}

fn load_state(chunk: Chunk, vector: u32) -> State {
    return State(exp_avg[vector], exp_avg_sq[vector]);
}

fn store_state(vector: u32, state: State) {
    exp_avg[vector] = state.exp_avg;
    exp_avg_sq[vector] = state.exp_avg_sq;
}

struct Update {
    direction: vec4<f32>,
    state: State,
}

fn update(old: State, gradient: vec4<f32>, row: Row) -> Update {
    let g = within_squares(gradient);
    let m = row.beta1 * old.exp_avg + row.one_minus_beta1 * g;
    let v = row.beta2 * old.exp_avg_sq + row.one_minus_beta2 * (g * g);
    return Update(m / (sqrt(v) + row.eps), State(m, v));
}
