// v ← β v + (1−β) (g² + ε) ;  u = g / √v

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    // Also where the moment of a coordinate without gradients has vanished.
    return select(within_squares(g) / sqrt(state.variance), vec4<f32>(), g == vec4<f32>());
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let state = State(s.beta2 * old.variance + s.one_minus_beta2 * (g * g + s.eps));
    return Update(direction_of(state, g, s), state);
}
