// The scalars of this base do not depend on the step.

import package::tables::Scalars;

fn corrected(s: Scalars) -> Scalars {
    return s;
}
