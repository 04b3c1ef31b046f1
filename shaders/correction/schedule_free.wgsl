// √c2 for the step and ε: c2 = 1 − β2^t

import package::lib::complement::complement;
import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let root = sqrt(complement(f32(s.t) * s.ln_beta2));
    s.step *= root;
    s.eps *= root;
    return s;
}
