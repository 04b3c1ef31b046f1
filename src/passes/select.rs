//! Top-K without sorting: digit by digit from histograms of the keys, then ties by index.

use super::{Over, Schedule};
use crate::plan::{BINS, Kernel, WORKGROUP};

pub(super) fn prepare(schedule: &mut Schedule<'_>) {
    schedule.per_tensor(Kernel::Prepare, 0, WORKGROUP as u32, 0);
}

pub(super) fn nearest(schedule: &mut Schedule<'_>) {
    schedule.per_tensor(Kernel::ScanNearest, 0, 1, 8 * BINS);
}

pub(super) fn exact(schedule: &mut Schedule<'_>) {
    schedule.per_tensor(Kernel::ScanExact, 0, 1, 8 * BINS);
    for digit in [1, 2] {
        schedule.per_page(|_| Kernel::Histogram, digit, Over::Spans, |numel, _| 4 * numel);
        schedule.per_tensor(Kernel::ScanExact, digit, 1, 8 * BINS);
    }
    schedule.per_page(|_| Kernel::Ties, 0, Over::Chunks, |numel, chunks| 4 * numel + 4 * chunks);
    schedule.per_page(|_| Kernel::Locate, 0, Over::PageTensors, |_, chunks| 4 * chunks);
}
