// √c3 for the step and ε, 1 / c1 and β2 / c2 for the averages: c_i = 1 − β_i^t

import package::lib::complement::complement;
import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    let root = sqrt(complement(t * s.ln_beta3));
    s.step *= root;
    s.eps *= root;
    s.weight1 = 1.0 / complement(t * s.ln_beta1);
    s.weight2 = s.beta2 / complement(t * s.ln_beta2);
    return s;
}
