//! The alignment score s = u ⊙ g, computed once: as mask bits, or as keys with a histogram of their first digit.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::WORKGROUP;

pub(super) fn mask(writer: &mut Writer<'_>) {
    let base = writer.base();
    let words = 1 + base.states(); // reads g and the state
    writer.per_page(
        |vectorized| Kernel::ScoreMask { base, vectorized },
        0,
        Over::Chunks,
        |numel, chunks| 4 * words * numel + 4 * WORKGROUP * chunks,
    );
}

pub(super) fn keys(writer: &mut Writer<'_>) {
    let base = writer.base();
    let words = 2 + base.states(); // reads g and the state; writes the keys
    writer.per_page(
        |vectorized| Kernel::ScoreKeys { base, vectorized },
        0,
        Over::Spans,
        |numel, _| 4 * words * numel,
    );
}
