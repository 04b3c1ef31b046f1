// v ← α v + (1−α) g² ;  a ← α a + (1−α) g ;  n = g / (√max(v − a², 0) + ε) ;  b ← μ b + n ;  u = b, or n without a momentum

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

override CENTERED: bool = false;
override MOMENTUM: bool = false;

fn normalized(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    var variance = state.square_avg;
    if CENTERED { variance = max(variance - state.grad_avg * state.grad_avg, vec4<f32>()); }
    return within_squares(g) / (sqrt(variance) + s.eps);
}

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if MOMENTUM { return state.momentum_buffer; }
    return normalized(state, g, s);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    var state = old;
    state.square_avg = s.beta2 * old.square_avg + s.one_minus_beta2 * (g * g);
    if CENTERED { state.grad_avg = s.beta2 * old.grad_avg + s.one_minus_beta2 * g; }
    if MOMENTUM { state.momentum_buffer = s.beta1 * old.momentum_buffer + normalized(state, g, s); }
    return Update(direction_of(state, g, s), state);
}
