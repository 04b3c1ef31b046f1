// m ← μ m + (1−μ) g ;  u = ν m + (1−ν) g: ν = μ looks a step ahead, ν = 1 does not

import package::state::{State, Update};
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return s.beta2 * state.momentum_buffer + s.one_minus_beta2 * g;
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let state = State(s.beta1 * old.momentum_buffer + s.one_minus_beta1 * g);
    return Update(direction_of(state, g, s), state);
}
