// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g² ;  u = m / (√v + ε)
// With one v per row, `step/row_moments.wgsl` has updated it already.

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

override BY_ROW: bool = false;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return state.exp_avg / (sqrt(state.exp_avg_sq) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    var state = old;
    state.exp_avg = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    if !BY_ROW { state.exp_avg_sq = s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g); }
    return Update(direction_of(state, g, s), state);
}
