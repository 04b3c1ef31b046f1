// step = lr / (1 + (t−1) lr_decay)

import package::tables::Scalars;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    s.step = s.lr / (1.0 + f32(s.t - 1u) * s.lr_decay);
    return s;
}
