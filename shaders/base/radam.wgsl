// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g² ;  u = m / (√v + ε), or m in the first steps

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    let divided = state.exp_avg / (sqrt(state.exp_avg_sq) + s.eps);
    return select(state.exp_avg, divided, vec4<bool>(s.adaptive == 1u));
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let m = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    let state = State(m, s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g));
    return Update(direction_of(state, g, s), state);
}
