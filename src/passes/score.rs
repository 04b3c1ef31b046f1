//! The alignment score s = u ⊙ g, computed once: as mask bits, or as keys with a histogram of their first digit.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::MASK_BYTES;

pub(super) fn mask(writer: &mut Writer<'_>) {
    let (base, access) = (writer.base(), writer.access());
    let words = 1 + base.states(); // reads g and the state
    let kernel = Kernel::ScoreMask { base, access };
    writer.per_page(kernel, 0, Over::Chunks, |numel, chunks| 4 * words * numel + MASK_BYTES * chunks);
}

pub(super) fn keys(writer: &mut Writer<'_>) {
    let (base, access) = (writer.base(), writer.access());
    let words = 2 + base.states(); // reads g and the state; writes the keys
    writer.per_page(Kernel::ScoreKeys { base, access }, 0, Over::Spans, |numel, _| 4 * words * numel);
}
