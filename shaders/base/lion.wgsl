// u = sign(β1 m + (1−β1) g) ;  m ← β2 m + (1−β2) g

@group(1) @binding(2) var<storage, read_write> exp_avg: array<vec4<f32>>;

struct State {
    exp_avg: vec4<f32>,
}

fn load_state(chunk: Chunk, vector: u32) -> State {
    return State(exp_avg[vector]);
}

fn store_state(vector: u32, state: State) {
    exp_avg[vector] = state.exp_avg;
}

struct Update {
    direction: vec4<f32>,
    state: State,
}

fn update(old: State, g: vec4<f32>, row: Row) -> Update {
    let interpolated = row.beta1 * old.exp_avg + row.one_minus_beta1 * g;
    let m = row.beta2 * old.exp_avg + row.one_minus_beta2 * g;
    return Update(sign(interpolated), State(m));
}
