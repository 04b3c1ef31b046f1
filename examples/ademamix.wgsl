// AdEMAMix (Pagliardini et al., ICLR 2025, arXiv 2409.03137): AdamW with a second, slow momentum.
//
//   m₁ ← β₁ m₁ + (1−β₁) g ;  m₂ ← β₃ m₂ + (1−β₃) g ;  v ← β₂ v + (1−β₂) g²
//   u = (m₁ / (1−β₁ᵗ) + α m₂) / (√(v / (1−β₂ᵗ)) + ε) ;  θ ← θ − lr (λ θ + u)
//
// Over the first `warmup` steps, α grows from 0, and the half-life of m₂ grows from that of m₁.
//
//@ base ademamix
//@ lr 1e-3
//@ state exp_avg_fast
//@ state exp_avg_slow
//@ state exp_avg_sq
//@ decay beta1 = 0.9
//@ decay beta2 = 0.999
//@ decay beta3 = 0.9999
//@ scalar alpha = 5 in [0, inf)
//@ scalar eps = 1e-8 in (0, 1]
//@ scalar warmup = 1 in [1, inf)

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    let alpha = s.alpha * min(f32(s.t) / s.warmup, 1.0);
    let denominator = sqrt(state.exp_avg_sq / s.beta2_correction) + s.eps;
    return (state.exp_avg_fast / s.beta1_correction + alpha * state.exp_avg_slow) / denominator;
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    // 1 / ln β moves linearly from its value for β₁ to its value for β₃.
    let share = min(f32(s.t) / s.warmup, 1.0);
    let beta3 = exp(1.0 / mix(1.0 / log(s.beta1), 1.0 / log(s.beta3), share));
    let fast = s.beta1 * old.exp_avg_fast + s.one_minus_beta1 * g;
    let slow = mix(g, old.exp_avg_slow, beta3);
    let squares = s.beta2 * old.exp_avg_sq + s.one_minus_beta2 * (g * g);
    let state = State(fast, slow, squares);
    return Update(direction_of(state, g, s), state);
}
