//! What copies one form of a tensor to another, outside the step itself: sums of micro-batches, and masters of parameters in
//! two bytes.

use super::{Operands, Over, Writer};
use crate::guard::Gradients;
use crate::kernel::{Access, Kernel};

/// Adds a micro-batch to the sums.
pub(super) fn accumulate(writer: &mut Writer<'_>) {
    let access = access(writer, false);
    let bytes = 8 + access.gradients.format.bytes();
    writer.per_page(Kernel::Accumulate { access }, Over::Chunks, |share| bytes * share.numel);
    over(writer, Operands::Sums);
}

/// Takes the parameters as masters.
pub(super) fn widen(writer: &mut Writer<'_>) {
    let access = access(writer, false);
    writer.per_page(Kernel::Widen { access }, Over::Chunks, |share| 6 * share.numel);
    over(writer, Operands::Masters);
}

/// Rounds the masters into the parameters.
pub(super) fn round(writer: &mut Writer<'_>) {
    let access = access(writer, writer.plan.gradients.skips);
    writer.per_page(Kernel::Round { access }, Over::Chunks, |share| 6 * share.numel);
    over(writer, Operands::Masters);
}

/// To the tensors as the caller has them.
fn access(writer: &Writer<'_>, skips: bool) -> Access {
    let format = writer.plan.precision;
    Access { vectorized: true, gradients: Gradients { format, skips, ..Gradients::default() }, rates: false }
}

fn over(writer: &mut Writer<'_>, operands: Operands) {
    writer.schedule.dispatches.iter_mut().for_each(|dispatch| dispatch.operands = operands);
}
