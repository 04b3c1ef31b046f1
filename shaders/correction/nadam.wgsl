// √c2 for the step and ε. With μ_t = β1 (1 − q^t / 2) and Π_t = μ_1 ⋯ μ_t, the gradient weighs (1 − μ_t) / (1 − Π_t) and the momentum
// μ_{t+1} / (1 − Π_{t+1}).

import package::lib::complement::complement;
import package::tables::Scalars;

// ln Π_t: that of each factor but β1 is −Σ_j (q^k / 2)^j / j, and the sum over k is a geometric series.
fn ln_product(t: f32, s: Scalars) -> f32 {
    var sum = 0.0;
    var share = 1.0;
    for (var j = 1u; j <= 24u; j += 1u) {
        let x = f32(j) * s.ln_momentum_decay;
        share *= 0.5;
        let powers = exp(x) * complement(t * x) / complement(x);
        sum += share / f32(j) * select(powers, t, x == 0.0);
    }
    return t * s.ln_beta1 - sum;
}

fn momentum(t: f32, s: Scalars) -> f32 {
    return s.beta1 * (1.0 - 0.5 * exp(t * s.ln_momentum_decay));
}

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    let root = sqrt(complement(t * s.ln_beta2));
    s.step *= root;
    s.eps *= root;
    s.weight1 = (1.0 - momentum(t, s)) / complement(ln_product(t, s));
    s.weight2 = momentum(t + 1.0, s) / complement(ln_product(t + 1.0, s));
    return s;
}
