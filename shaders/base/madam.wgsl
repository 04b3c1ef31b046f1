// δ = g − a ;  1 − β = w (δ² − q) / (w (δ² − q) + δ² + q) within bounds ;  w ← β w + 1 − β ;  h = (1−β) / w
// a ← a + h δ ;  q ← (1−h) (q + h δ²) ;  m ← β1 m + (1−β1) g ;  u = m / (√(q + a²) + ε)
// LaMAdam: m ← β1 m + (1−β1) lr g / (√(q + a²) + ε) ;  u = m

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

override NORMALIZES_FIRST: bool = false;

const TINY: f32 = 1e-16;    // keeps a share from 0 / 0

fn divisor(state: State, s: Scalars) -> vec4<f32> {
    return sqrt(state.variance + state.mean * state.mean) + s.eps;
}

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if NORMALIZES_FIRST { return state.exp_avg; }
    return state.exp_avg / divisor(state, s);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = 0.5 * within_squares(2.0 * gradient);   // so that differences have squares
    let delta = g - old.mean;
    let square = delta * delta;
    let gain = old.weight * (square - old.variance) + TINY;
    let free = clamp(gain / (gain + square + old.variance), vec4<f32>(s.one_minus_beta2), vec4<f32>(s.largest_rest));
    let rest = select(vec4<f32>(s.one_minus_beta2), free, old.weight > vec4<f32>());
    var state = old;
    state.weight = old.weight + rest * (vec4<f32>(1.0) - old.weight);
    let h = rest / state.weight;
    state.mean = old.mean + h * delta;
    state.variance = (vec4<f32>(1.0) - h) * (old.variance + h * square);
    var entering = g;
    if NORMALIZES_FIRST { entering = s.lr * (g / divisor(state, s)); }
    state.exp_avg = s.beta1 * old.exp_avg + s.one_minus_beta1 * entering;
    return Update(direction_of(state, g, s), state);
}
