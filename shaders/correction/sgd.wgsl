// The first gradient is not dampened.

import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    s.one_minus_beta1 = select(s.one_minus_beta1, 1.0, s.t == 1u);
    return s;
}
