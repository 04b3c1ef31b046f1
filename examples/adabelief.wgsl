// AdaBelief (Zhuang et al., NeurIPS 2020, arXiv 2010.07468): smaller steps where the gradient differs from its moving average.
//
//   m ← β₁ m + (1−β₁) g ;  v ← β₂ v + (1−β₂) (g − m)² + ε
//   u = m / (1−β₁ᵗ) / (√(v / (1−β₂ᵗ)) + ε) ;  θ ← θ − lr (λ θ + u)
//
//@ base adabelief
//@ lr 1e-3
//@ state exp_avg
//@ state exp_avg_var
//@ decay beta1 = 0.9
//@ decay beta2 = 0.999
//@ scalar eps = 1e-16 in (0, 1]

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    let root = sqrt(state.exp_avg_var / s.beta2_correction);
    return state.exp_avg / s.beta1_correction / (root + s.eps);
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let m = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    let v = s.beta2 * old.exp_avg_var + s.one_minus_beta2 * (g - m) * (g - m) + s.eps;
    let state = State(m, v);
    return Update(direction_of(state, g, s), state);
}
