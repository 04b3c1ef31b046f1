// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g² ;  u = m / (√v + ε)
// A v for each row has moved on already: see `step/row_moments.wgsl`. AMSGrad divides by the largest v so far, Padam by a power.

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

override BY_ROW: bool = false;
override AMSGRAD: bool = false;
override POWER: bool = false;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    var v = state.exp_avg_sq;
    if AMSGRAD { v = state.max_exp_avg_sq; }
    let denominator = sqrt(v) + s.eps;
    if POWER { return state.exp_avg / pow(denominator, vec4<f32>(s.power)); }
    return state.exp_avg / denominator;
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    var state = old;
    state.exp_avg = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    if !BY_ROW { state.exp_avg_sq = s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g); }
    if AMSGRAD { state.max_exp_avg_sq = max(old.max_exp_avg_sq, state.exp_avg_sq); }
    return Update(direction_of(state, g, s), state);
}
