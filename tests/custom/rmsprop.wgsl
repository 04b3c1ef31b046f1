// RMSprop without a momentum.
//
//@ base own_rmsprop
//@ lr 1e-2
//@ state square_avg
//@ decay alpha = 0.99
//@ scalar eps = 1e-8 in [0, inf)

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return within_squares(g) / (sqrt(state.square_avg) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let state = State(s.alpha * old.square_avg + s.one_minus_alpha * (g * g));
    return Update(direction_of(state, g, s), state);
}
