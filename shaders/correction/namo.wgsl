// √(1−μ₂^t) / (1−μ^t)

import package::lib::complement::complement;
import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    s.weight1 = sqrt(complement(t * s.ln_beta3)) / complement(t * s.ln_beta1);
    return s;
}
