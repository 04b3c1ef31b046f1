//! Top-K without sorting, in one pass over memory: a sample of the step brackets the K-th largest score, the stream decides
//! every coordinate outside the bracket, counts prove that the bracket was right, and the few candidates inside it are
//! ranked. Where it was wrong, full histograms find the K-th largest, and what the stream decided is corrected.

use super::{Over, Writer};
use crate::kernel::Kernel;
use crate::plan::BINS;

/// Bytes of a candidate.
pub(super) const CANDIDATE: u64 = 12;
/// Digits of a key and of an index, 11 bits each.
const ROUNDS: usize = 6;

/// Before the stream: the ends of the bracket.
pub(super) fn sample(writer: &mut Writer<'_>) {
    let (base, access, bounds) = (writer.base(), writer.access(), writer.policy().bounds());
    let words = 1 + base.states(); // reads g and the state; writes the keys
    let grad = writer.grad_bytes();
    let kernel = Kernel::Sample { base, access };
    writer.per_page(kernel, Over::Pieces, |share| (4 * words + grad) * share.sampled);
    // Reads the keys for two more digits and for the ties.
    let keys = 3 * 4 * writer.sampled();
    writer.per_tensor(Kernel::RankSample, bounds as f64, bounds * 8 * BINS, bounds * keys);
}

/// After the stream: the candidates.
pub(super) fn finish(writer: &mut Writer<'_>) {
    let (base, skips, rates) = (writer.base(), writer.plan.gradients.skips, writer.plan.rates > 0);
    writer.per_tensor(Kernel::Prove, 1.0, 8 * BINS, 0);
    // Reads the candidates; reads and writes their parameters.
    let bytes = CANDIDATE + 8;
    writer.per_page(Kernel::Repair { base, skips, rates }, Over::Pieces, |share| bytes * share.candidates);
    writer.per_page(Kernel::Settle { base, skips, rates }, Over::Pieces, |_| 0);
}

/// Last: the tensors whose bracket missed, if there are any.
pub(super) fn recount(writer: &mut Writer<'_>) {
    let kernel = Kernel::Recount { base: writer.base(), access: writer.access() };
    for _ in 0..ROUNDS {
        writer.per_page(kernel, Over::Pieces, |_| 0);
        writer.per_tensor(Kernel::ScanBins, 1.0, 0, 0);
    }
    let last = writer.schedule.grids.len();
    writer.per_page(kernel, Over::Pieces, |_| 0);
    for grid in &mut writer.schedule.grids[last..] {
        grid.correct = 1;
    }
}
