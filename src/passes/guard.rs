//! The norm of all gradients, whether all are finite, and what becomes of the step.

use super::{Over, Share, Writer};
use crate::kernel::{Kernel, Measured};

pub(super) fn norm(writer: &mut Writer<'_>) {
    let kernel = Kernel::Norm { base: writer.base(), access: writer.access(), of: Measured::Gradients };
    let grad = writer.grad_bytes();
    writer.per_page(kernel, Over::Chunks, |share| bytes(grad, share));
}

/// Of a pass that sums squares of values of so many bytes each.
pub(super) fn bytes(each: u64, share: Share) -> u64 {
    each * share.numel + 4 * share.chunks
}

pub(super) fn guard(writer: &mut Writer<'_>) {
    writer.once(Kernel::Guard, 8);
}
