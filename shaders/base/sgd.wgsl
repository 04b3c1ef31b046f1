// b ← μ b + w g ;  u = ahead b + own g: ahead = μ and own = 1 look a step ahead, ahead = 1 and own = 0 do not

import package::state::{State, Update};
import package::tables::Scalars;

override MOMENTUM: bool = false;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if MOMENTUM { return s.beta2 * state.momentum_buffer + s.one_minus_beta2 * g; }
    return g;
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    var state = old;
    if MOMENTUM { state.momentum_buffer = s.beta1 * old.momentum_buffer + s.one_minus_beta1 * g; }
    return Update(direction_of(state, g, s), state);
}
