// m ← μ m + (1−μ) g ;  u = ν m + (1−ν) g: ν = μ looks a step ahead, ν = 1 does not

@group(1) @binding(2) var<storage, read_write> momentum_buffer: array<vec4<f32>>;

struct State {
    momentum: vec4<f32>,
}

fn load_state(chunk: Chunk, vector: u32) -> State {
    return State(momentum_buffer[vector]);
}

fn store_state(vector: u32, state: State) {
    momentum_buffer[vector] = state.momentum;
}

struct Update {
    direction: vec4<f32>,
    state: State,
}

fn update(old: State, g: vec4<f32>, row: Row) -> Update {
    let m = row.beta1 * old.momentum + row.one_minus_beta1 * g;
    return Update(row.beta2 * m + row.one_minus_beta2 * g, State(m));
}
