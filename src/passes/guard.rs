//! The norm of all gradients, whether all are finite, and what becomes of the step.

use super::{Over, Share, Writer};
use crate::kernel::{Kernel, Measured};

pub(super) fn norm(writer: &mut Writer<'_>) {
    let kernel = Kernel::Norm { base: writer.base(), access: writer.access(), of: Measured::Gradients };
    writer.per_page(kernel, Over::Chunks, bytes);
}

/// Of a pass that sums squares.
pub(super) fn bytes(share: Share) -> u64 {
    4 * share.numel + 4 * share.chunks
}

pub(super) fn guard(writer: &mut Writer<'_>) {
    writer.once(Kernel::Guard, 8);
}
