// AdamW with the defaults of the MGUP paper: ε before the bias correction, and a decay at the corrected rate.
//
//@ base own_adamw
//@ state exp_avg
//@ state exp_avg_sq
//@ decay beta1 = 0.9
//@ decay beta2 = 0.999
//@ scalar eps = 1e-8 in [0, inf)
//@ bias_corrected beta1 beta2

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return state.exp_avg / (sqrt(state.exp_avg_sq) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let m = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    let v = s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g);
    let state = State(m, v);
    return Update(direction_of(state, g, s), state);
}
