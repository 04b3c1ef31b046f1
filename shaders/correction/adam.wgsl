// √c2 / c1 for the step and the decay, √c2 for ε: c1 = 1 − β1^t, c2 = 1 − β2^t

import package::lib::complement::complement;
import package::tables::Scalars;

const CORRECTS_STEP: u32 = 1u;
const CORRECTS_DECAY: u32 = 2u;
const CORRECTS_EPS: u32 = 4u;

fn corrected(uncorrected: Scalars) -> Scalars {
    var s = uncorrected;
    let t = f32(s.t);
    let root = sqrt(complement(t * s.ln_beta2));
    let bias = root / complement(t * s.ln_beta1);
    s.step *= select(1.0, bias, (s.corrects & CORRECTS_STEP) != 0u);
    s.decay *= select(1.0, bias, (s.corrects & CORRECTS_DECAY) != 0u);
    s.eps *= select(1.0, root, (s.corrects & CORRECTS_EPS) != 0u);
    return s;
}
