//! The step itself: moments, factor and parameter in one pass over the tensors.

use super::{Over, Share, Writer, select};
use crate::kernel::Kernel;
use crate::plan::PolicyKind;

pub(super) fn stream(writer: &mut Writer<'_>) {
    let (base, access, policy) = (writer.base(), writer.access(), writer.policy());
    let words = 2 + 2 * base.states(); // reads θ and the state; writes both
    let grad = writer.grad_bytes();
    let kernel = match policy {
        PolicyKind::Mgup => Kernel::StreamExact { base, access },
        PolicyKind::MgupSmall => Kernel::Small { base, access },
        _ => Kernel::Stream { base, policy, access },
    };
    let bytes = |share: Share| {
        // Writes the candidates, and counts them.
        (4 * words + grad) * share.numel
            + policy.bits_bytes(base) * share.chunks
            + (select::CANDIDATE + 8) * share.candidates
    };
    writer.per_page(kernel, Over::Chunks, bytes);
}
