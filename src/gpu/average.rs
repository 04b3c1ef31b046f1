//! Averages of parameters for evaluation: of schedule-free bases, and over the steps of a run.

use super::optimizer::GpuOptimizer;
use super::record::Given;
use super::scope;
use super::slices::{self, TensorBuffers};
use super::target::Target;
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::Scalars;
use crate::plan::program::When;
use crate::plan::scalars::UniformBytes;
use crate::recipe::precision::Precision;

impl GpuOptimizer {
    /// Replaces parameters by their averages, for evaluation: all of them with [`ParamGroups::with_average`](crate::ParamGroups::with_average),
    /// otherwise those of schedule-free bases. A parameter whose average has not begun does not change. Does nothing if the averages are
    /// there already.
    ///
    /// The call submits its work at once: submit recorded steps first. Until [`train`](Self::train), steps and
    /// [`set_recipe`](Self::set_recipe) return [`Error::Evaluating`].
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.evaluate()?;
    /// // … the loss on held-out data …
    /// assert!(optimizer.is_evaluating());
    /// optimizer.train()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Ownership`] for an optimizer that steps your buffers: use [`evaluate_with`](Self::evaluate_with). [`Error::RingFull`] if
    /// too many recorded steps wait to be submitted. [`Error::DeviceLost`].
    pub fn evaluate(&mut self) -> Result<()> {
        self.switch(true, None)
    }

    /// Brings back the parameters that [`evaluate`](Self::evaluate) has replaced, so that training can continue: to the bit, or up to
    /// rounding for schedule-free bases. Does nothing if they are there already.
    ///
    /// # Errors
    /// As for [`evaluate`](Self::evaluate).
    pub fn train(&mut self) -> Result<()> {
        self.switch(false, None)
    }

    /// [`evaluate`](Self::evaluate) for parameters in your buffers. `buffers` has one item per tensor, as in
    /// [`record_with`](Self::record_with). Gradients are not used. `None` leaves a tensor unchanged: pass `None` for the
    /// same tensors to [`train_with`](Self::train_with).
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer, weight: wgpu_optim::TensorBuffers<'_>) -> Result<(), wgpu_optim::Error> {
    /// optimizer.evaluate_with(&[weight])?;
    /// // … the loss on held-out data …
    /// optimizer.train_with(&[weight])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with).
    pub fn evaluate_with<'a, B>(&mut self, buffers: &[B]) -> Result<()>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let buffers: Vec<_> = buffers.iter().map(|&buffers| buffers.into()).collect();
        self.switch(true, Some(&buffers))
    }

    /// [`train`](Self::train) for parameters in your buffers.
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with).
    pub fn train_with<'a, B>(&mut self, buffers: &[B]) -> Result<()>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let buffers: Vec<_> = buffers.iter().map(|&buffers| buffers.into()).collect();
        self.switch(false, Some(&buffers))
    }

    /// Whether [`evaluate`](Self::evaluate) was called and [`train`](Self::train) was not called since. Checkpoints store this.
    pub fn is_evaluating(&self) -> bool {
        self.evaluating
    }

    /// Whether averages in bf16 are in the place of parameters. They have no lower halves: those of the masters stay.
    pub(super) fn has_half_averages_in_place(&self) -> bool {
        self.evaluating && self.plan.average_format() == Precision::Bf16
    }

    /// Refuses what would change parameters that are averages.
    pub(super) fn trains(&self) -> Result<()> {
        ensure!(!self.evaluating, Error::Evaluating);
        Ok(())
    }

    fn switch(&mut self, to_averages: bool, given: Option<&Given<'_>>) -> Result<()> {
        let refusal = match given {
            None => "this optimizer steps your buffers: use `evaluate_with` and `train_with`",
            Some(_) => "this optimizer holds its parameters: use `evaluate` and `train`",
        };
        self.has_arenas(given.is_none(), refusal)?;
        if let Some(given) = given {
            let alignment = u64::from(self.device.limits().min_storage_buffer_offset_alignment);
            slices::validate(&self.plan, given, alignment, false)?;
        }
        self.probe.check()?;
        if to_averages == self.evaluating {
            return Ok(());
        }
        if self.plan.averages() {
            let when = if to_averages { When::Evaluate } else { When::Train };
            // The caller may have changed parameters that have no masters yet.
            let runs = |other: When| other == when || (other == When::Masters && given.is_some());
            let prepared = scope::watch(&self.device, || self.prepare(given, Vec::new(), &runs))?;
            // Of the scalars only β1 matters, which no schedule changes.
            let mut uniforms = UniformBytes::default();
            let rows = self.groups.with_fallbacks(self.initial.clone());
            rows.iter().for_each(|recipe| uniforms.push(&Scalars::new(recipe, 1, &self.groups, 1.0)));
            let grids = uniforms.0.len() as u64;
            prepared.work.grids.iter().for_each(|grid| uniforms.push(grid));
            let slot = self.ring.put(&self.queue, &uniforms.0, &prepared.work.chunks)?;
            let mut encoder = self.encoder();
            let mut target = Target::Encoder(&mut encoder);
            self.record_prepared(&mut target, &prepared, &runs, [slot.uniforms + grids, slot.uniforms, slot.chunks]);
            target.on_done(move || drop(slot));
            scope::watch(&self.device, || self.queue.submit([encoder.finish()]))?;
        }
        self.evaluating = to_averages;
        Ok(())
    }
}
