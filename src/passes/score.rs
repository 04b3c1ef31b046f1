//! The alignment score s = u ⊙ g, computed once: as mask bits, or as keys with a histogram of their first digit.

use super::{Over, Schedule};
use crate::plan::{Kernel, WORKGROUP};

pub(super) fn mask(schedule: &mut Schedule<'_>) {
    let base = schedule.base();
    let words = 1 + base.states(); // reads g and the state
    schedule.per_page(
        |vectorized| Kernel::ScoreMask { base, vectorized },
        0,
        Over::Chunks,
        |numel, chunks| 4 * words * numel + 4 * WORKGROUP * chunks,
    );
}

pub(super) fn keys(schedule: &mut Schedule<'_>) {
    let base = schedule.base();
    let words = 2 + base.states(); // reads g and the state; writes the keys
    schedule.per_page(
        |vectorized| Kernel::ScoreKeys { base, vectorized },
        0,
        Over::Spans,
        |numel, _| 4 * words * numel,
    );
}
