// A custom base optimizer: state and direction of four coordinates at a time. Write its equation and its paper here.
//
//   m ← β m + (1−β) g ;  u = m / (1−β^t) ;  θ ← θ − lr (λ θ + φ u)
//
// The parameter θ, its learning rate, weight decay λ and the factor φ of the policy are wgpu-optim's.
//
//@ base my_optimizer
//@ lr 1e-3
// A state has one number per coordinate, 0 before the first step unless you write `= VALUE`. At most 4.
//@ state m
// A decay rate lies in [0, 1). `Scalars` then has `beta`, `one_minus_beta` and `beta_correction`, which is 1 − β^t.
//@ decay beta = 0.9
// Any other hyper-parameter: `//@ scalar NAME = VALUE in [LOW, HIGH]`. `Scalars` also has `lr: f32` and the step `t: u32`, from 1.

// The direction u after the state has moved on. Exact MGUP looks for it again after a step; other policies do without this function.
fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return state.m / s.beta_correction;
}

// The new state and the direction. `g` is the gradient, after clipping and unscaling.
fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let state = State(s.beta * old.m + s.one_minus_beta * g);
    return Update(direction_of(state, g, s), state);
}
