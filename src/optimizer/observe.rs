//! Telemetry of steps, read without waiting.

use std::sync::atomic::Ordering;

use super::GpuOptimizer;
use crate::error::Error;
use crate::guard::{Guarded, NonFinite};
use crate::kernel::{Header, TENSORS_HEADER};
use crate::plan::PolicyKind;
use crate::readback;
use crate::telemetry::{Telemetry, TensorTelemetry, score_of};

impl GpuOptimizer {
    /// The oldest observed step that was not fetched yet; see [`ParamGroups::with_telemetry`](crate::ParamGroups::with_telemetry).
    /// Never waits: a step arrives when the GPU is done with it and something is submitted or polled. The last 64 are kept.
    ///
    /// # Errors
    /// [`Error::NonFinite`] under [`NonFinite::Error`] if steps were skipped since the last report, [`Error::Readback`].
    pub fn take_telemetry(&self) -> Option<Result<Telemetry, Error>> {
        // What is done already calls back; on the web it does so by itself.
        let _ = self.device.poll(wgpu::PollType::Poll);
        self.mailbox.take()
    }

    /// Whether the next step is observed.
    pub(super) fn observes(&self) -> bool {
        self.groups.telemetry().is_some_and(|every| self.recorded.is_multiple_of(every.into()))
    }

    /// Records the reading of what was observed, of the tensors that were there.
    pub(super) fn read_observations(&self, encoder: &mut wgpu::CommandEncoder, present: Vec<bool>) {
        let Some((observations, _)) = &self.observations else { return };
        let records = 32 * self.plan.tensors.len() as u64;
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("wgpu-optim.telemetry.staging"),
            size: TENSORS_HEADER + records,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        encoder.copy_buffer_to_buffer(&self.tensors, 0, &staging, 0, TENSORS_HEADER);
        let first = observations.size() - records;
        encoder.copy_buffer_to_buffer(observations, first, &staging, TENSORS_HEADER, records);

        // In the caller's order, with what the GPU does not say.
        let mut blank: Vec<(usize, bool, u64, TensorTelemetry)> = Vec::new();
        for &tensor in self.plan.order.iter().filter(|&&tensor| present[tensor]) {
            let known = &self.plan.tensors[tensor];
            let policy = self.plan.classes[self.plan.blocks[known.block].class].policy;
            let selects = policy.samples() || policy == PolicyKind::MgupSmall;
            let telemetry = TensorTelemetry {
                name: known.spec.name.clone(),
                numel: known.numel,
                k: known.k,
                selected: 0,
                threshold: None,
                candidates: 0,
                missed: false,
                alignment: 0.0,
                grad_norm: 0.0,
                update_norm: 0.0,
                non_finite: 0,
            };
            let counts = selects || policy == PolicyKind::Cautious;
            // Approximate selection may select fewer than K, and has a threshold all the same.
            let least = if policy == PolicyKind::MgupApproximate { 0 } else { known.k };
            blank.push((tensor, counts, least, telemetry));
        }
        let (step, guarded) = (self.recorded.saturating_add(1), self.plan.gradients.guarded);
        let fails = self.groups.non_finite() == NonFinite::Error;
        let names: Vec<_> = match fails {
            true => self.plan.tensors.iter().map(|tensor| tensor.spec.name.clone()).collect(),
            false => Vec::new(),
        };
        let (reported, mailbox, mapped) = (self.reported.clone(), self.mailbox.clone(), staging.clone());
        encoder.map_buffer_on_submit(&staging, wgpu::MapMode::Read, .., move |result| {
            let failed =
                |reason: String| Error::Readback { what: format!("telemetry of step {step}"), reason };
            let read = || {
                result.map_err(|e| failed(e.to_string()))?;
                let view = mapped.get_mapped_range(..).map_err(|e| failed(e.to_string()))?;
                let (header, records) = view.split_at(TENSORS_HEADER as usize);
                let header: Header = readback::decode("telemetry", header.to_vec())?;
                let records: Vec<[u32; 8]> = bytemuck::pod_collect_to_vec(records);
                let before = reported.fetch_max(header.skipped, Ordering::Relaxed);
                if fails && header.skipped > before {
                    return Err(header.error(&names));
                }
                let tensors = blank.into_iter().map(|(tensor, counts, least, known)| {
                    let [gradient, update, positive, non_finite, selected, threshold, missed, candidates] =
                        records[tensor];
                    TensorTelemetry {
                        selected: if counts { selected.into() } else { 0 },
                        threshold: score_of(threshold)
                            .filter(|_| known.k > 0 && header.skip == 0 && u64::from(selected) >= least),
                        candidates: if known.k > 0 { candidates.into() } else { 0 },
                        missed: known.k > 0 && missed == 1,
                        alignment: positive as f32 / known.numel as f32,
                        grad_norm: f32::from_bits(gradient).sqrt(),
                        update_norm: f32::from_bits(update).sqrt(),
                        non_finite: non_finite.into(),
                        ..known
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
