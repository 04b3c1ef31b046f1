//! What telemetry needs: before a step its gradients, scores and parameters, behind it how far it went.

use super::{Operands, Over, Writer};
use crate::kernel::Kernel;

pub(super) fn before(writer: &mut Writer<'_>) {
    let (base, access) = (writer.base(), writer.access());
    // Reads θ, g and the state; writes the copy.
    let words = 2 + base.states();
    let grad = writer.grad_bytes();
    let kernel = Kernel::Observe { base, access };
    writer.per_page(kernel, Over::Chunks, |share| (4 * words + grad) * share.numel + 12 * share.chunks);
    over_tensors(writer);
}

pub(super) fn after(writer: &mut Writer<'_>) {
    let (base, access) = (writer.base(), writer.access());
    let kernel = Kernel::Moved { base, access };
    writer.per_page(kernel, Over::Chunks, |share| 8 * share.numel + 4 * share.chunks);
    over_tensors(writer);
    writer.per_tensor(Kernel::Report, 1.0, 32, 0);
    // Behind four words a chunk.
    writer.last_grid().records = 4 * writer.plan.chunk_count();
}

/// Of a matrix base, too, the parameters.
fn over_tensors(writer: &mut Writer<'_>) {
    for dispatch in &mut writer.schedule.dispatches {
        dispatch.operands = match dispatch.kernel {
            Kernel::Observe { .. } | Kernel::Moved { .. } => Operands::Tensors,
            _ => dispatch.operands,
        };
    }
}
