// 1 − β = t^decay_rate ;  step = min(lr, 1 / √t) with relative_step

import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    s.one_minus_beta2 = exp(s.ln_momentum_decay * log(t));
    s.beta2 = 1.0 - s.one_minus_beta2;
    if s.adaptive == 1u { s.step = min(s.lr, 1.0 / sqrt(t)); }
    return s;
}
