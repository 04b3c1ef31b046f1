//! The norm of all gradients, and the factor that clips it.

use super::{Over, Share, Writer};
use crate::kernel::Kernel;

pub(super) fn norm(writer: &mut Writer<'_>) {
    let kernel = Kernel::Norm { base: writer.base(), access: writer.access() };
    writer.per_page(kernel, Over::Chunks, bytes);
}

/// Of a pass that sums squares.
pub(super) fn bytes(share: Share) -> u64 {
    4 * share.numel + 4 * share.chunks
}

pub(super) fn factor(writer: &mut Writer<'_>) {
    writer.once(Kernel::Clip, 8);
}
