//! The alignment score s = u ⊙ g as mask bits.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::WORKGROUP;

pub(super) fn mask(writer: &mut Writer<'_>) {
    let (base, access, bits) = (writer.base(), writer.access(), writer.policy().bits_bytes(writer.base()));
    writer.per_tensor(Kernel::Prepare, 1.0 / WORKGROUP as f64, 0, 0);
    let each = writer.grad_bytes() + 4 * base.states(); // reads g and the state
    let kernel = Kernel::ScoreMask { base, access };
    writer.per_page(kernel, Over::Chunks, |share| each * share.numel + bits * share.chunks);
}
