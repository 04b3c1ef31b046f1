// d = g − g of the step before ;  m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) d ;  n ← β3 n + (1−β3) (g + β2 d)²
// u = (m / c1 + β2 v / c2) / (√n + ε)

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return (s.weight1 * state.exp_avg + s.weight2 * state.exp_avg_diff) / (sqrt(state.exp_avg_sq) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let change = select(g + old.neg_pre_grad, vec4<f32>(), vec4<bool>(s.t == 1u));
    let ahead = within_squares(g + s.beta2 * change);
    var state = old;
    state.exp_avg = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    state.exp_avg_diff = s.beta2 * old.exp_avg_diff + s.one_minus_beta2 * change;
    state.exp_avg_sq = s.beta3 * old.exp_avg_sq + s.one_minus_beta3 * (ahead * ahead);
    state.neg_pre_grad = -g;
    return Update(direction_of(state, g, s), state);
}
