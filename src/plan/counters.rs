//! Words that the kernels of a step share: factors of learning rates, sampled keys, histograms, candidates, sums of squares.

use super::layout::{BINS, Class, DIGITS, Plan, PlanLimits, RATES, within};
use crate::error::{Error, Result, ensure};
use crate::kernel::tables;
use crate::recipe::Recipe;
use crate::recipe::base::LineSums;
use crate::recipe::policy::{PolicyKind, Selects};
use crate::recipe::sampling::{CANDIDATE, Sampling};

/// Each tensor's factors begin at a multiple of this, so that they can be bound alone.
const RATES_ALIGNMENT: u64 = 64;

/// The first factors are 1, for tensors without any.
pub(super) fn place_rates(plan: &mut Plan) -> Result<()> {
    if plan.tensors.iter().all(|tensor| tensor.spec.components == 0) {
        return Ok(());
    }
    plan.rates = RATES_ALIGNMENT;
    for tensor in plan.tensors.iter_mut().filter(|tensor| tensor.spec.components > 0) {
        tensor.entry.rates = plan.rates as u32;
        plan.rates += (tensor.spec.components as u64).next_multiple_of(RATES_ALIGNMENT);
    }
    let what = "learning rates of components, padded to multiples of 64 per tensor,";
    ensure!(plan.rates <= RATES, Error::TooMany { what, given: plan.rates, most: RATES });
    Ok(())
}

pub(super) fn place_counters(plan: &mut Plan, limits: PlanLimits) -> Result<()> {
    fn take(words: &mut u64, count: u64) -> u32 {
        *words += count;
        (*words - count) as u32
    }
    let chunks = u64::from(plan.chunk_count());
    let has_norms = plan.classes.iter().any(|class| class.base.is_matrix() || class.base.row().norms.is_some());
    let sums = u64::from(plan.gradients.guarded) + if has_norms { 2 } else { 0 };
    for tensor in &mut plan.tensors {
        let Some(lines) = plan.classes[plan.blocks[tensor.block].class].base.row().lines else { continue };
        // Inputs have sums of gradients and of directions.
        let each = if lines.sums == LineSums::Directions { 2 } else { 1 };
        tensor.entry.lines = take(&mut plan.counters, each * tensor.line_sums().iter().sum::<u64>());
    }
    fit_candidates(plan, (limits.binding / 4).saturating_sub(sums * chunks + plan.counters));
    for tensor in &mut plan.tensors {
        let Some(sampling) = tensor.sampling else { continue };
        let policy = plan.classes[plan.blocks[tensor.block].class].policy;
        let is_searched_by_many = tensor.is_searched_by_many();
        let entry = &mut tensor.entry;
        entry.sample = take(&mut plan.samples, sampling.coordinates());
        entry.histogram = take(&mut plan.counters, policy.bounds() * BINS);
        seek(entry, &sampling, policy);
        if policy.selects() == Selects::Exact {
            if is_searched_by_many {
                entry.search = take(&mut plan.counters, DIGITS * BINS);
            }
            entry.candidates = take(&mut plan.counters, CANDIDATE * u64::from(sampling.capacity));
            entry.list = take(&mut plan.counters, sampling.boundary.into());
        }
    }
    if plan.gradients.guarded {
        plan.norms = Some(take(&mut plan.counters, chunks));
    }
    if has_norms {
        plan.tensor_norms = [(); 2].map(|()| take(&mut plan.counters, chunks));
    }
    within("max_storage_buffer_binding_size", 4 * plan.counters.max(plan.samples), limits.binding)
}

impl Plan {
    /// Gives the tensors of a group the K of another ratio, in the room that their candidates have. Returns those that changed.
    pub(crate) fn set_recipe(&mut self, group: usize, recipe: Recipe) -> Vec<usize> {
        let mut changed = Vec::new();
        for (index, tensor) in self.tensors.iter_mut().enumerate().filter(|(_, tensor)| tensor.spec.group == group) {
            let k = recipe.on(&tensor.spec).policy.k(tensor.numel);
            if k == tensor.k {
                continue;
            }
            (tensor.k, tensor.entry.k) = (k, k as u32);
            if tensor.sampling.is_some() {
                let (policy, mut sampling) =
                    (self.classes[self.blocks[tensor.block].class].policy, Sampling::new(tensor.numel, k));
                // What was placed, whatever ratios came since: the list follows the candidates.
                let room = (tensor.entry.list - tensor.entry.candidates) / CANDIDATE as u32;
                if policy.selects() == Selects::Exact && sampling.capacity > room {
                    sampling = sampling.with_capacity(room);
                }
                tensor.sampling = Some(sampling);
                seek(&mut tensor.entry, &sampling, policy);
            }
            changed.push(index);
        }
        changed
    }
}

/// Tells the kernels which ranks of a sample to seek, and how many candidates there may be.
fn seek(entry: &mut tables::Tensor, sampling: &Sampling, policy: PolicyKind) {
    (entry.stride, entry.strata) = (sampling.stride, sampling.strata);
    (entry.rank_high, entry.rank_low) = match policy.selects() {
        Selects::Exact => (sampling.high, sampling.low),
        _ => (sampling.middle, entry.rank_low),
    };
    (entry.capacity, entry.list_capacity) = (sampling.capacity, sampling.boundary);
}

/// Gives candidates less room where all of them, with the histograms, take more than so many words.
fn fit_candidates(plan: &mut Plan, words: u64) {
    let of_class = |class: &Class| {
        let searched = plan.tensors[class.tensors.clone()].iter().filter(|tensor| tensor.is_searched_by_many());
        let searches = if class.policy.selects() == Selects::Exact { DIGITS * searched.count() as u64 } else { 0 };
        BINS * (class.tensors.len() as u64 * class.policy.bounds() + searches)
    };
    let room = words.saturating_sub(plan.classes.iter().map(of_class).sum());
    let needed = |samplings: &[Sampling]| samplings.iter().map(Sampling::candidate_words).sum::<u64>();
    let samplings: Vec<Sampling> = plan.tensors.iter().filter_map(|tensor| plan.exact_sampling(tensor)).collect();
    let (mut fitted, mut share) = (samplings.clone(), room as f64 / needed(&samplings) as f64);
    // Lists of one bin do not shrink in proportion.
    while needed(&fitted) > room && fitted.iter().any(|s| s.capacity > s.least_capacity()) {
        let shrunk = |s: &Sampling| {
            let capacity = (f64::from(s.capacity) * share) as u32 / 64 * 64;
            s.with_capacity(capacity.max(s.least_capacity()))
        };
        fitted = samplings.iter().map(shrunk).collect();
        share *= 0.95;
    }
    let exact: Vec<bool> = plan.tensors.iter().map(|tensor| plan.exact_sampling(tensor).is_some()).collect();
    let tensors = plan.tensors.iter_mut().zip(exact).filter(|(_, exact)| *exact);
    tensors.zip(fitted).for_each(|((tensor, _), sampling)| tensor.sampling = Some(sampling));
}
