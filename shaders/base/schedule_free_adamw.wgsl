// v ← β2 v + (1−β2) g² ;  u = g / (√v + ε)

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return within_squares(g) / (sqrt(state.exp_avg_sq) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let state = State(s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g));
    return Update(direction_of(state, g, s), state);
}
