//! Telemetry of steps, read without waiting.

use super::optimizer::GpuOptimizer;
use super::readback;
use super::telemetry::{StepLength, Telemetry, TensorTelemetry, score_of};
use crate::error::{Error, Result};
use crate::kernel::tables::HEADER_BYTES;
use crate::plan::layout::OF_TENSOR;
use crate::recipe::base::BaseKind;
use crate::recipe::guard::Guarded;
use crate::recipe::policy::Selects;

impl GpuOptimizer {
    /// Takes the oldest observed step that was not taken yet; `None` if none has arrived. See
    /// [`ParamGroups::with_telemetry`](crate::ParamGroups::with_telemetry). It never waits: a step arrives after the GPU is done with it,
    /// at the next submit or poll. The last 64 are kept.
    ///
    /// ```no_run
    /// # fn example(device: &wgpu_optim::wgpu::Device, queue: &wgpu_optim::wgpu::Queue) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{GpuOptimizer, ParamGroups, Recipe, StepLength, Telemetry, TensorSpec, TensorTelemetry};
    /// let groups = ParamGroups::from(Recipe::adamw(1e-3).mgup()).with_telemetry(100);
    /// let mut optimizer = GpuOptimizer::new_blocking(device, queue, &[TensorSpec::new("w", [64])], groups)?;
    /// for _ in 0..1000 {
    ///     optimizer.step()?;
    ///     while let Some(observed) = optimizer.take_telemetry() {
    ///         let observed: Telemetry = observed?;
    ///         println!("{}", observed.summary());
    ///         for TensorTelemetry { name, update_norm, lengths, .. } in &observed.tensors {
    ///             println!("{name}: |update| {update_norm}");
    ///             if let Some([plain, taken]) = lengths {
    ///                 let longer = |of: fn(&StepLength) -> f32| of(taken) / of(plain);
    ///                 println!("{} times as long", longer(|step| step.l2));
    ///             }
    ///         }
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`] under [`NonFinite::Error`](crate::NonFinite::Error) if steps were skipped since the last report, [`Error::Readback`].
    pub fn take_telemetry(&self) -> Option<Result<Telemetry>> {
        // What is done already calls back; on the web it does so by itself.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.mailbox.take()
    }

    /// Records the reading of what was observed, of the tensors that were there, in the order of the plan.
    pub(super) fn read_observations(&self, encoder: &mut wgpu::CommandEncoder, present: &[usize]) {
        let observations = &self.buffers[self.storage.observations];
        let records = 4 * OF_TENSOR * self.plan.tensors.len() as u64;
        let staging = readback::staging(&self.device, "wgpu-optim.telemetry.staging", HEADER_BYTES + records);
        encoder.copy_buffer_to_buffer(self.table(), 0, &staging, 0, HEADER_BYTES);
        let first = observations.size() - records;
        encoder.copy_buffer_to_buffer(observations, first, &staging, HEADER_BYTES, records);

        // In the caller's order, with what the GPU does not say.
        let known = |&tensor: &usize| {
            let known = &self.plan.tensors[tensor];
            let base = &self.groups.recipes()[known.spec.group].on(&known.spec).base;
            let is_measured = BaseKind::of(base).has_plain_steps() && !base.has_cautious_decay();
            (tensor, self.plan.policy_of(known), known.spec.name.clone(), known.numel, known.k, is_measured)
        };
        let present = self.plan.order.iter().filter(|tensor| present.binary_search(tensor).is_ok());
        let known: Vec<_> = present.map(known).collect();
        let (step, guarded) = (self.counts.recorded.saturating_add(1), self.plan.gradients.guarded);
        let (checked, mailbox, mapped) = (self.checked(), self.mailbox.clone(), staging.clone());
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., move |result| {
            let what = format!("telemetry of step {step}");
            let read = || {
                result.map_err(|e| Error::readback(&what, e))?;
                let view = mapped.get_mapped_range(..).map_err(|e| Error::readback(&what, e))?;
                let (header, records) = view.split_at(HEADER_BYTES as usize);
                let header = checked(readback::decode("telemetry", header)?)?;
                let records: Vec<[u32; OF_TENSOR as usize]> = bytemuck::pod_collect_to_vec(records);
                let tensors = known.into_iter().map(|(tensor, policy, name, numel, k, is_measured)| {
                    let [
                        gradient,
                        update,
                        lengths @ ..,
                        positive,
                        non_finite,
                        selected,
                        threshold,
                        missed,
                        candidates,
                        _,
                        _,
                    ] = records[tensor];
                    let [plain, scaled] = [0, 3].map(|first| {
                        let [l1, squares, descent] = [0, 1, 2].map(|at| f32::from_bits(lengths[first + at]));
                        StepLength { l1, l2: squares.sqrt(), descent }
                    });
                    let is_finite = [plain, scaled].iter().all(|step| (step.l1 + step.l2 + step.descent).is_finite());
                    // Approximate selection may select fewer than K, and has a threshold all the same.
                    let least = if policy.selects() == Selects::Sampled { 0 } else { k };
                    let has_cut = policy.selects() != Selects::Random;
                    let has_threshold = k > 0 && has_cut && header.skip == 0 && u64::from(selected) >= least;
                    TensorTelemetry {
                        name,
                        numel,
                        k,
                        selected: if policy.row().counts { selected.into() } else { 0 },
                        threshold: score_of(threshold).filter(|_| has_threshold),
                        candidates: if k > 0 { candidates.into() } else { 0 },
                        missed: k > 0 && missed == 1,
                        alignment: positive as f32 / numel as f32,
                        grad_norm: f32::from_bits(gradient).sqrt(),
                        update_norm: f32::from_bits(update).sqrt(),
                        lengths: (is_measured && is_finite && header.skip == 0).then_some([plain, scaled]),
                        non_finite: non_finite.into(),
                    }
                });
                let guarded = guarded.then(|| Guarded::from(header));
                Ok(Telemetry { step, guarded, tensors: tensors.collect() })
            };
            mailbox.put(read());
            mapped.destroy();
        });
    }
}
