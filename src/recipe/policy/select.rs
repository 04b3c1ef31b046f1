//! Selection on the CPU: the K largest scores of a tensor, by rank or from a sample.

use crate::recipe::prelude::*;
use crate::recipe::sampling::{Sampling, hash};
use crate::recipe::spec::CHUNK;

/// Coordinates of a tensor that one workgroup steps under `mgup`, selection included.
pub const SMALL: u64 = CHUNK;

/// The `k` largest scores, ties to the lower index; NaN is never among them.
pub fn top_k<T: Float>(score: &[T], k: usize) -> Vec<bool> {
    let mut candidates: Vec<usize> = (0..score.len()).filter(|&i| !score[i].is_nan()).collect();
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, |&a, &b| order(score, a, b));
        candidates.truncate(k);
    }
    let mut selected = vec![false; score.len()];
    candidates.into_iter().for_each(|i| selected[i] = true);
    selected
}

/// Approximate selection in step `t`: the scores that are no smaller than the one that the step's sample takes for the
/// `k`-th largest, ties to the lower index; the `k` largest where there are no more than 4,096.
pub fn sampled<T: Float>(score: &[T], k: usize, t: u64) -> Vec<bool> {
    let numel = score.len() as u64;
    if numel <= SMALL {
        return top_k(score, k);
    }
    let cut = sampled_cut(score, Sampling::new(numel, k as u64), t, 0);
    let is_selected = |i: usize, cut| !score[i].is_nan() && order(score, cut, i).is_ge();
    (0..score.len()).map(|i| cut.is_some_and(|cut| is_selected(i, cut))).collect()
}

/// The last coordinate that approximate selection takes, `shift` ranks of the sample further; `None` if it takes none.
pub(crate) fn sampled_cut<T: Float>(score: &[T], sampling: Sampling, t: u64, shift: isize) -> Option<usize> {
    let mut sample: Vec<usize> = sampling.indices(score.len() as u64, t).filter(|&i| !score[i].is_nan()).collect();
    let rank = (sampling.middle as usize).saturating_add_signed(shift).checked_sub(1)?;
    if rank < sample.len() {
        Some(*sample.select_nth_unstable_by(rank, |&a, &b| order(score, a, b)).1)
    } else {
        // The sample has fewer numbers: all are taken.
        (0..score.len()).filter(|&i| !score[i].is_nan()).max_by(|&a, &b| order(score, a, b))
    }
}

/// `k` of `numel` coordinates at random in step `t`: those that a permutation puts before the others. The permutation is a Feistel network
/// over two halves of the bits, which is repeated while its result lies beyond the tensor.
pub fn random(numel: usize, k: usize, t: u64) -> Vec<bool> {
    let half = (usize::BITS - numel.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
    let (mask, step) = ((1u32 << half) - 1, (t as u32).wrapping_mul(4));
    let once = |at: u32| {
        (0..4).fold(at, |at, round| {
            ((at & mask) << half) | (((at >> half) ^ hash(step.wrapping_add(round), at & mask)) & mask)
        })
    };
    let permuted = |index: usize| {
        std::iter::successors(Some(once(index as u32)), |&at| Some(once(at))).find(|&at| (at as usize) < numel)
    };
    (0..numel).map(|index| permuted(index).is_some_and(|at| (at as usize) < k)).collect()
}

/// The order of selection of two coordinates whose scores are not NaN: the larger score first, then the lower index.
fn order<T: Float>(score: &[T], a: usize, b: usize) -> std::cmp::Ordering {
    let (x, y) = (flushed(score[a]), flushed(score[b]));
    y.partial_cmp(&x).expect("NaN was left out").then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_selection_takes_k_coordinates_and_others_in_each_step() {
        for (numel, k) in [(1, 0), (1, 1), (2, 1), (3, 2), (257, 128), (4097, 1000), (20_001, 10_000)] {
            let [first, again, next] = [7, 7, 8].map(|t| random(numel, k, t));
            assert_eq!(first.iter().filter(|&&is| is).count(), k, "{k} of {numel}");
            assert_eq!(first, again);
            assert!(numel < 100 || first != next, "{numel}");
        }
        // No place is preferred: about half of each half.
        let half = random(20_000, 10_000, 3)[..10_000].iter().filter(|&&is| is).count();
        assert!(half.abs_diff(5000) < 300, "{half}");
    }
}
