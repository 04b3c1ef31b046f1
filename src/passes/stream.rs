//! The step itself: moments, factor and parameter in one pass over the tensors.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::{MASK_BYTES, Scratch};

pub(super) fn stream(writer: &mut Writer<'_>) {
    let (base, access) = (writer.base(), writer.access());
    let policy = writer.policy().stream();
    let words = 3 + 2 * base.states(); // reads θ, g and the state; writes θ and the state
    writer.per_page(Kernel::Stream { base, policy, access }, 0, Over::Chunks, |numel, chunks| {
        4 * words * numel
            + match policy.scratch() {
                Scratch::None => 0,
                Scratch::Mask => MASK_BYTES * chunks,
                Scratch::Keys => 4 * numel,
            }
    });
}
