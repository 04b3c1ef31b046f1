//! What steps did to every tensor, a step or two later and without waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::submissions::lock;
use crate::error::Result;
use crate::recipe::guard::Guarded;

/// How many observed steps are kept until [`GpuOptimizer::take_telemetry`](crate::GpuOptimizer::take_telemetry) fetches
/// them; then the oldest is dropped.
pub(crate) const KEPT: usize = 64;

/// What an observed step did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Telemetry {
    /// Number of the step, counted from 1 as by [`recorded_steps`](crate::GpuOptimizer::recorded_steps).
    pub step: u64,
    /// Norm, loss scale and skips, for optimizers that clip a norm, scale the loss or skip steps.
    pub guarded: Option<Guarded>,
    /// The tensors of the step, in the order of the specs. Tensors that the step left out are missing.
    pub tensors: Vec<TensorTelemetry>,
}

/// A measured step of a tensor: a change of its parameters without the decay.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct StepLength {
    /// Σ |Δ|.
    pub l1: f32,
    /// √Σ Δ².
    pub l2: f32,
    /// Σ Δ g: to first order, by how much the step lowers the loss.
    pub descent: f32,
}

/// What an observed step did to a tensor.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TensorTelemetry {
    /// Name of the tensor.
    pub name: String,
    /// Number of coordinates, d.
    pub numel: u64,
    /// K of `mgup`; 0 under other policies.
    pub k: u64,
    /// Number of coordinates that were selected (`mgup`) or had a positive score (`cautious`); 0 under other policies.
    pub selected: u64,
    /// The threshold of `mgup`: selected coordinates have no lower score, and others no higher one. `None` under other policies, in a
    /// skipped step, and if fewer than K scores are numbers.
    pub threshold: Option<f32>,
    /// Number of candidates, as in [`Selected::candidates`](crate::Selected::candidates).
    pub candidates: u64,
    /// Whether the bracket missed, as in [`Selected::missed`](crate::Selected::missed).
    pub missed: bool,
    /// Share of the coordinates with a positive score u·g, 0 to 1.
    pub alignment: f32,
    /// Norm ‖g‖₂ of the finite gradients, before limiting and clipping. The scale of the loss is undone.
    pub grad_norm: f32,
    /// Norm ‖Δθ‖₂ of the change of the parameters.
    pub update_norm: f32,
    /// The step as it would have been with all factors φ = 1, and the step that was taken. Quotients of their lengths say how much longer the
    /// policy made the step. `None` for bases of matrices, averages, rows and columns, and rates per tensor, under a cautious decay, in a
    /// skipped step, and where they are not finite. What was taken is as exact as the difference of the parameters: to about 1e-7 |θ| per coordinate.
    pub lengths: Option<[StepLength; 2]>,
    /// Number of gradients that are infinite or NaN.
    pub non_finite: u64,
}

impl Telemetry {
    /// Sums up the tensors, for a line of a log.
    pub fn summary(&self) -> String {
        let total = |of: &dyn Fn(&TensorTelemetry) -> f64| self.tensors.iter().map(of).sum::<f64>();
        let norm = |of: fn(&TensorTelemetry) -> f32| total(&|tensor| f64::from(of(tensor)).powi(2)).sqrt();
        let sum = |of: fn(&TensorTelemetry) -> u64| self.tensors.iter().map(of).sum::<u64>();
        let (numel, k, selected) = (sum(|tensor| tensor.numel), sum(|tensor| tensor.k), sum(|tensor| tensor.selected));
        let percent = |of: f64| 100.0 * of / numel as f64;
        let aligned = percent(total(&|tensor| f64::from(tensor.alignment) * tensor.numel as f64));
        let (step, grad, update) = (self.step, norm(|tensor| tensor.grad_norm), norm(|tensor| tensor.update_norm));
        let mut text = format!("step {step}: |g| {grad:.4e}, |update| {update:.4e}, aligned {aligned:.1} %");
        if k > 0 {
            let share = percent(selected as f64);
            text += &format!(", selected {share:.2} % ({selected} of {numel}, K {k})");
        }
        if let Some(Guarded { loss_scale, skipped, skipped_steps, .. }) = self.guarded {
            let skipped = if skipped { ", skipped" } else { "" };
            text += &format!(", loss scale {loss_scale}, {skipped_steps} steps skipped{skipped}");
        }
        let lost = sum(|tensor| tensor.non_finite);
        if lost > 0 {
            text += &format!(", {lost} gradients are not finite");
        }
        text
    }
}

/// Where observed steps wait to be fetched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox(Arc<Mutex<VecDeque<Result<Telemetry>>>>);

impl Mailbox {
    /// Keeps an observed step, and logs it.
    pub(crate) fn put(&self, found: Result<Telemetry>) {
        match &found {
            Ok(telemetry) => log::info!("{}", telemetry.summary()),
            Err(error) => log::error!("{error}"),
        }
        let mut waiting = lock(&self.0);
        if waiting.len() == KEPT {
            waiting.pop_front();
        }
        waiting.push_back(found);
    }

    pub(crate) fn take(&self) -> Option<Result<Telemetry>> {
        lock(&self.0).pop_front()
    }
}

/// The score of a key; `None` for NaN.
pub(crate) fn score_of(key: u32) -> Option<f32> {
    const ZERO: u32 = 0x8000_0000;
    match key {
        0 => None,
        ZERO.. => Some(f32::from_bits(key ^ ZERO)),
        _ => Some(f32::from_bits(!key)),
    }
    .filter(|score| !score.is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_give_their_scores_back() {
        assert_eq!(score_of(0), None);
        assert_eq!(score_of(0x8000_0000), Some(0.0));
        for score in [1.0f32, -1.0, 3.5e-30, -3.5e-30, 1e30, f32::INFINITY, f32::NEG_INFINITY] {
            let bits = score.to_bits() as i32;
            let key = (bits ^ ((bits >> 31) | i32::MIN)) as u32;
            assert_eq!(score_of(key), Some(score), "{key:x}");
        }
    }

    #[test]
    fn a_mailbox_keeps_the_latest() {
        let mailbox = Mailbox::default();
        let telemetry = |step| Telemetry { step, guarded: None, tensors: Vec::new() };
        (0..70).for_each(|step| mailbox.put(Ok(telemetry(step))));
        let steps: Vec<_> = std::iter::from_fn(|| mailbox.take()).map(|found| found.unwrap().step).collect();
        assert_eq!(steps, (6..70).collect::<Vec<_>>());
    }
}
