//! The sum of the gradients of a step's micro-batches.

use super::{Operands, Over, Writer};
use crate::guard::Gradients;
use crate::kernel::{Access, Kernel};

pub(super) fn add(writer: &mut Writer<'_>) {
    let access = Access { vectorized: true, gradients: Gradients::default() };
    writer.per_page(Kernel::Accumulate { access }, Over::Chunks, |share| 12 * share.numel);
    for dispatch in &mut writer.schedule.dispatches {
        dispatch.operands = Operands::Sums;
    }
}
