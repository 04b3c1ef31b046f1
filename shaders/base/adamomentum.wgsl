// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) m² + ε ;  u = m / √v

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return state.exp_avg / sqrt(state.exp_avg_sq);
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let m = s.beta1 * old.exp_avg + s.one_minus_beta1 * within_squares(g);
    let state = State(m, s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (m * m) + s.eps);
    return Update(direction_of(state, g, s), state);
}
