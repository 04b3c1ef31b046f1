// A custom base optimizer. It computes the state and the direction of four coordinates at a time. Write its equation and its paper here.
//
//   m ← β m + (1−β) g ;  u = m / (1−β^t) ;  θ ← θ − lr (λ θ + φ u)
//
// wgpu-optim updates the parameter θ. It applies the learning rate lr, the weight decay λ and the factor φ of the policy.
//
//@ base my_optimizer
//@ lr 1e-3
// A state is one number per coordinate. It starts at 0, or at VALUE if you append `= VALUE`. A base has at most 4 states.
//@ state m
// A decay rate is in [0, 1). For this one, `Scalars` has `beta`, `one_minus_beta`, and `beta_correction`, which is 1 − β^t.
//@ decay beta = 0.9
// Declare other hyper-parameters with `//@ scalar NAME = VALUE in [LOW, HIGH]`. `Scalars` also has `lr: f32` and the step `t: u32`, from 1.

// Returns the direction u from the new state. Exact MGUP uses it to compute the direction again. Other policies do not need this function.
fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return state.m / s.beta_correction;
}

// Returns the direction and the new state. `g` is the gradient, after unscaling and clipping.
fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let state = State(s.beta * old.m + s.one_minus_beta * g);
    return Update(direction_of(state, g, s), state);
}
