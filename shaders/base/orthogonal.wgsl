// u = O, the orthogonalised direction of a matrix, its rate included. The momentum has moved on already.

@group(1) @binding(2) var<storage, read_write> orthogonal: array<vec4<f32>>;

struct State {
    orthogonal: vec4<f32>,
}

fn load_state(chunk: Chunk, vector: u32) -> State {
    return State(orthogonal[vector]);
}

fn store_state(vector: u32, state: State) {
}

struct Update {
    direction: vec4<f32>,
    state: State,
}

fn update(old: State, g: vec4<f32>, row: Row) -> Update {
    return Update(old.orthogonal, old);
}
