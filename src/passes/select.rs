//! Top-K without sorting: digit by digit from histograms of the keys, then ties by index.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::{BINS, WORKGROUP};

pub(super) fn prepare(writer: &mut Writer<'_>) {
    writer.per_tensor(Kernel::Prepare, 0, WORKGROUP as u32, 0);
}

pub(super) fn nearest(writer: &mut Writer<'_>) {
    writer.per_tensor(Kernel::ScanNearest, 0, 1, 8 * BINS);
}

pub(super) fn exact(writer: &mut Writer<'_>) {
    writer.per_tensor(Kernel::ScanExact, 0, 1, 8 * BINS);
    for digit in [1, 2] {
        writer.per_page(Kernel::Histogram, digit, Over::Spans, |numel, _| 4 * numel);
        writer.per_tensor(Kernel::ScanExact, digit, 1, 8 * BINS);
    }
    writer.per_page(Kernel::Ties, 0, Over::Chunks, |numel, chunks| 4 * numel + 4 * chunks);
    writer.per_page(Kernel::Locate, 0, Over::PageTensors, |_, chunks| 4 * chunks);
}
