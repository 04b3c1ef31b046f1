//! Reading and writing parameters, gradients, state, and what a step found.

use std::sync::atomic::Ordering;

use encase::ShaderType;

use super::{Counts, GpuOptimizer, Miss, Selected};
use crate::error::Error;
#[cfg(doc)]
use crate::groups::ParamGroups;
use crate::guard::{Guarded, NonFinite};
use crate::kernel::{Header, SKIPPED, TENSORS_HEADER, TensorEntry};
use crate::plan::{Ownership, PolicyKind};
use crate::precision::Precision;
use crate::ranges::{check, finite_non_negative, invertible};
use crate::readback;
use crate::scope;
use crate::slices::TensorSlice;

/// The name of masters among the state.
pub(super) const MASTER: &str = "master";

impl GpuOptimizer {
    /// Where a parameter lies in the optimizer's arena: bind it, or copy to and from it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Ownership`] if the caller holds the parameters.
    pub fn param(&self, name: &str) -> Result<TensorSlice<'_>, Error> {
        self.arena(name, 0)
    }

    /// Where a gradient lies in the optimizer's arena: write it there with a kernel of your own.
    ///
    /// # Errors
    /// As for [`param`](Self::param).
    pub fn grad(&self, name: &str) -> Result<TensorSlice<'_>, Error> {
        self.arena(name, 1)
    }

    fn arena(&self, name: &str, which: usize) -> Result<TensorSlice<'_>, Error> {
        let tensor = self.plan.tensor(name)?;
        let arena = self.arenas.get(tensor.block).ok_or(Error::Ownership(
            "this optimizer was made for the caller's buffers and holds no parameters or gradients",
        ))?;
        let unit = self.plan.precision.bytes();
        let size = (unit * tensor.numel).next_multiple_of(4);
        Ok(TensorSlice { buffer: &arena[which], offset: unit * tensor.offset, size })
    }

    /// Where a tensor's master lies, if there are any.
    pub(super) fn master(&self, tensor: usize) -> Option<TensorSlice<'_>> {
        let tensor = &self.plan.tensors[tensor];
        let buffer = self.masters.get(tensor.block)?;
        Some(TensorSlice { buffer, offset: 4 * tensor.offset, size: tensor.bytes() })
    }

    /// Where the gradients of a tensor are added up.
    pub(super) fn grad_sum(&self, tensor: usize) -> TensorSlice<'_> {
        let tensor = &self.plan.tensors[tensor];
        TensorSlice { buffer: &self.sums[tensor.block], offset: 4 * tensor.offset, size: tensor.bytes() }
    }

    /// The names of a tensor's state.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn state_names(&self, name: &str) -> Result<impl Iterator<Item = &'static str> + use<>, Error> {
        let base = self.plan.base_of(self.plan.tensor(name)?);
        let master = (!self.masters.is_empty()).then_some(MASTER);
        Ok(base.state_names().iter().chain(base.scalar_names()).copied().chain(master))
    }

    /// Where a state lies: `exp_avg` and `exp_avg_sq` of AdamW (the latter one number a row under
    /// [`SecondMoment::Row`](crate::base::SecondMoment::Row)), `exp_avg` of Lion, `momentum_buffer` of Muon and AdaGO,
    /// `accumulator` of AdaGO, one number, which can be copied but lies too close to others to be bound; and `master`, the
    /// parameter in f32, where it is stored in two bytes.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`]; [`Error::Ownership`] if the caller holds the state.
    pub fn state(&self, name: &str, state: &str) -> Result<TensorSlice<'_>, Error> {
        let tensor = self.plan.tensor(name)?;
        if self.plan.ownership == Ownership::Stateless {
            return Err(Error::Ownership("the caller holds the state of this optimizer"));
        }
        let base = self.plan.base_of(tensor);
        if base.scalar_names().contains(&state) {
            return Ok(self.accumulator(self.plan.tensor_index(name)?));
        }
        if let Some(master) = self.master(self.plan.tensor_index(name)?).filter(|_| state == MASTER) {
            return Ok(master);
        }
        let names = base.state_names();
        let Some(index) = names.iter().position(|n| *n == state) else {
            let known = self.state_names(name)?.collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownState { name: state.to_owned(), known });
        };
        let buffer = &self.states[tensor.block][index];
        Ok(match base.is_of_rows(index) {
            true => TensorSlice { buffer, offset: 4 * tensor.rows, size: 4 * tensor.row_count() },
            false => TensorSlice { buffer, offset: 4 * tensor.offset, size: tensor.bytes() },
        })
    }

    /// Writes a parameter from the host, rounded where it is stored in two bytes, and its master. It lands before the next
    /// submit.
    ///
    /// # Errors
    /// As for [`param`](Self::param); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_param(&self, name: &str, data: &[f32]) -> Result<(), Error> {
        let param = self.param(name)?;
        self.write(name, "parameter", param, self.plan.precision, data)?;
        match self.master(self.plan.tensor_index(name)?) {
            Some(master) => self.write(name, "parameter", master, Precision::F32, data),
            None => Ok(()),
        }
    }

    /// Writes a gradient from the host, rounded where it is stored in two bytes. It lands before the next submit.
    ///
    /// # Errors
    /// As for [`write_param`](Self::write_param).
    pub fn write_grad(&self, name: &str, data: &[f32]) -> Result<(), Error> {
        self.write(name, "gradient", self.grad(name)?, self.plan.precision, data)
    }

    /// Writes a state from the host, as when resuming; see also [`set_steps`](Self::set_steps). It lands before the next
    /// submit.
    ///
    /// # Errors
    /// As for [`state`](Self::state); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_state(&self, name: &str, state: &str, data: &[f32]) -> Result<(), Error> {
        self.write(name, "state", self.state(name, state)?, Precision::F32, data)?;
        if state == MASTER {
            self.set_mastered([(self.plan.tensor_index(name)?, true)].into_iter());
        }
        Ok(())
    }

    fn write(
        &self,
        name: &str,
        what: &'static str,
        to: TensorSlice<'_>,
        precision: Precision,
        data: &[f32],
    ) -> Result<(), Error> {
        // State may have another size than its tensor, and parameters and gradients padding.
        let numel = if what == "state" { to.size / 4 } else { self.plan.tensor(name)?.numel };
        if numel != data.len() as u64 {
            return Err(Error::Slice {
                tensor: name.to_owned(),
                what,
                reason: format!("{} values given, {numel} needed", data.len()),
            });
        }
        scope::watch(&self.device, || {
            self.queue.write_buffer(to.buffer, to.offset, &precision.encode(data));
        })
    }

    /// Where the factors of a tensor's components lie: f32s that multiply its learning rate, and the weight decay with it. Write them
    /// there on the GPU, or bind them.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Tensor`] if its spec has no [`components`](crate::TensorSpec::with_components).
    pub fn rates(&self, name: &str) -> Result<TensorSlice<'_>, Error> {
        let tensor = self.plan.tensor(name)?;
        if tensor.spec.components == 0 {
            let reason = "its spec has no components with learning rates of their own".to_owned();
            return Err(Error::Tensor { tensor: name.to_owned(), reason });
        }
        let (offset, size) = (4 * u64::from(tensor.rates), 4 * tensor.spec.components as u64);
        Ok(TensorSlice { buffer: &self.rates, offset, size })
    }

    /// Writes the factors of a tensor's components, each finite and not negative. They land before the next submit.
    ///
    /// # Errors
    /// As for [`rates`](Self::rates); [`Error::Slice`] if there are more or fewer; [`Error::Recipe`] for a factor out of range.
    pub fn write_rates(&self, name: &str, factors: &[f32]) -> Result<(), Error> {
        let slice = self.rates(name)?;
        if slice.size != 4 * factors.len() as u64 {
            return Err(Error::Slice {
                tensor: name.to_owned(),
                what: "rates",
                reason: format!("{} values given, {} needed", factors.len(), slice.size / 4),
            });
        }
        for (i, &factor) in factors.iter().enumerate() {
            check(&format!("rates[{i}]"), factor.into(), finite_non_negative)?;
        }
        scope::watch(&self.device, || {
            self.queue.write_buffer(slice.buffer, slice.offset, bytemuck::cast_slice(factors));
        })
    }

    /// Records the clearing of all gradients in the optimizer's arena; not of what micro-batches have added up.
    ///
    /// # Errors
    /// [`Error::Ownership`] if the caller holds the gradients.
    pub fn zero_grad(&self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        if self.plan.ownership != Ownership::Arenas {
            return Err(Error::Ownership("the caller holds the gradients of this optimizer"));
        }
        for [_, grad] in &self.arenas {
            encoder.clear_buffer(grad, 0, None);
        }
        Ok(())
    }

    /// Forgets the micro-batches that were recorded since the last step, and records the clearing of what they have added up.
    pub fn forget_micro_batches(&mut self, encoder: &mut wgpu::CommandEncoder) {
        self.sums.iter().for_each(|sum| encoder.clear_buffer(sum, 0, None));
        self.micro_batches = 0;
        self.has_sum.fill(false);
        self.submissions.forget_sums();
        // If this encoder is dropped, they are as they were.
        let ticket = self.submissions.ticket(self.plan.accumulates);
        encoder.on_submitted_work_done(move || ticket.done());
    }

    /// What the host counts, to be given back to [`rewind`](Self::rewind) if what was recorded since is not submitted.
    #[doc(hidden)]
    pub fn counts(&self) -> Counts {
        Counts {
            steps: self.steps.clone(),
            recorded: self.recorded,
            micro_batches: self.micro_batches,
            has_sum: self.has_sum.clone(),
            submissions: self.submissions.recorded(),
        }
    }

    /// Counts as before.
    #[doc(hidden)]
    pub fn rewind(&mut self, counts: Counts) {
        (self.steps, self.recorded, self.micro_batches) =
            (counts.steps, counts.recorded, counts.micro_batches);
        self.has_sum = counts.has_sum;
        self.submissions.rewind(counts.submissions);
    }

    /// Steps that a tensor was part of: t of the bias corrections, but for those that the GPU skipped
    /// ([`read_steps`](Self::read_steps)).
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn steps(&self, name: &str) -> Result<u64, Error> {
        Ok(self.steps[self.plan.tensor_index(name)?])
    }

    /// Reads the steps that a tensor has taken: t of the bias corrections. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_steps(&self, name: &str) -> Result<impl Future<Output = Result<u64, Error>> + use<>, Error> {
        let recorded = self.steps(name)?;
        let offset = self.entry(self.plan.tensor_index(name)?) + SKIPPED;
        let skipped = self.fetch(name, &[(&self.tensors, offset, 4)])?;
        Ok(async move {
            let skipped: u32 = bytemuck::pod_collect_to_vec(&skipped.await?)[0];
            Ok(recorded.saturating_sub(skipped.into()))
        })
    }

    /// Sets the number of steps that every tensor has taken, as when resuming; at most 2⁶³ − 1, as a checkpoint has it.
    pub fn set_steps(&mut self, steps: u64) {
        (0..self.steps.len()).for_each(|tensor| self.set_steps_of(tensor, steps));
        self.arrange_rows().expect("all have the same");
    }

    pub(super) fn set_steps_of(&mut self, tensor: usize, steps: u64) {
        self.steps[tensor] = steps.min(i64::MAX as u64);
        if self.plan.gradients.skips {
            self.queue.write_buffer(&self.tensors, self.entry(tensor) + SKIPPED, &[0; 4]);
        }
    }

    /// Where the entry of a tensor lies.
    pub(super) fn entry(&self, tensor: usize) -> u64 {
        TENSORS_HEADER + TensorEntry::min_size().get() * tensor as u64
    }

    /// Sets the number of steps that one tensor has taken, as when resuming tensors that have not always stepped together.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Ownership`] for an optimizer with arenas, where all tensors step together.
    pub fn set_tensor_steps(&mut self, name: &str, steps: u64) -> Result<(), Error> {
        if self.plan.ownership == Ownership::Arenas {
            return Err(Error::Ownership("in arenas all tensors step together: use `set_steps`"));
        }
        let tensor = self.plan.tensor_index(name)?;
        self.set_steps_of(tensor, steps);
        Ok(())
    }

    /// Reads a parameter, its master where it is stored in two bytes. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// As for [`param`](Self::param), and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_param(
        &self,
        name: &str,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + use<>, Error> {
        let param = self.param(name)?;
        self.read(name, self.master(self.plan.tensor_index(name)?).unwrap_or(param))
    }

    /// Reads a state. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// As for [`state`](Self::state), and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_state(
        &self,
        name: &str,
        state: &str,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + use<>, Error> {
        self.read(name, self.state(name, state)?)
    }

    /// Reads what selection did to a tensor in the last step that ran. For a tensor that was left out of that step, it means
    /// nothing. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_selected(
        &self,
        name: &str,
    ) -> Result<impl Future<Output = Result<Selected, Error>> + use<>, Error> {
        let size = TensorEntry::min_size().get();
        let counts = {
            let tensor = self.plan.tensor(name)?;
            let policy = self.plan.classes[self.plan.blocks[tensor.block].class].policy;
            !matches!(policy, PolicyKind::Plain | PolicyKind::CautiousMgup | PolicyKind::Grams)
        };
        let offset = self.entry(self.plan.tensor_index(name)?);
        let ranges = [(&self.tensors, offset, size)];
        let bytes = self.fetch(name, &ranges)?;
        let what = name.to_owned();
        Ok(async move {
            let found: TensorEntry = readback::decode(&what, bytes.await?)?;
            Ok(Selected {
                k: found.k.into(),
                count: if counts { found.selected.into() } else { 0 },
                candidates: found.inside.into(),
                missed: found.missed == 1,
            })
        })
    }

    /// Reads the norm of all gradients of the last step that ran, as it was before it was clipped. Off the web, poll the
    /// device until the future is ready.
    ///
    /// # Errors
    /// [`Error::Plan`] if the optimizer does not clip, when called; as for [`read_guarded`](Self::read_guarded), when awaited.
    pub fn read_grad_norm(&self) -> Result<impl Future<Output = Result<f32, Error>> + use<>, Error> {
        self.clips()?;
        let guarded = self.read_guarded()?;
        Ok(async move { Ok(guarded.await?.grad_norm) })
    }

    /// Reads what the guard of the last step found: the gradients' norm, whether the step was skipped, and the scale of the next
    /// loss. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// [`Error::Plan`] if the optimizer neither clips a norm nor skips steps, when called. [`Error::Readback`], when awaited, and
    /// [`Error::NonFinite`] under [`NonFinite::Error`] if a step was skipped since this was last read.
    pub fn read_guarded(&self) -> Result<impl Future<Output = Result<Guarded, Error>> + use<>, Error> {
        if !self.plan.gradients.guarded {
            return Err(Error::Plan(
                "this optimizer neither clips the norm of gradients nor looks whether they are finite; give its \
                 parameter groups a `max_grad_norm`, a `grad_scaler` or a `non_finite`"
                    .to_owned(),
            ));
        }
        let ranges = [(&self.tensors, 0, TENSORS_HEADER)];
        let bytes = self.fetch("what the guard found", &ranges)?;
        let names: Vec<_> = match self.groups.non_finite() {
            NonFinite::Error => self.plan.tensors.iter().map(|tensor| tensor.spec.name.clone()).collect(),
            NonFinite::Propagate | NonFinite::Skip => Vec::new(),
        };
        let reported = self.reported.clone();
        Ok(async move {
            let header: Header = readback::decode("what the guard found", bytes.await?)?;
            let before = reported.fetch_max(header.skipped, Ordering::Relaxed);
            if header.skipped > before && !names.is_empty() {
                return Err(header.error(&names));
            }
            Ok(header.into())
        })
    }

    /// What the next loss is to be multiplied by: an f32, alone, to be bound as a uniform or as storage that is only read, or copied. It
    /// changes on the GPU, with a step. 1 without a [`GradScaler`](crate::GradScaler).
    pub fn loss_scale(&self) -> TensorSlice<'_> {
        TensorSlice { buffer: &self.tensors, offset: 0, size: 4 }
    }

    /// Sets the scale of the next loss. It lands before the next submit.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not within 2⁻¹²⁶ to 2¹²⁶; [`Error::Plan`] for an optimizer without a
    /// [`GradScaler`](crate::GradScaler).
    pub fn set_loss_scale(&self, scale: f64) -> Result<(), Error> {
        check("loss_scale", scale, invertible)?;
        if self.groups.grad_scaler().is_none() {
            return Err(Error::Plan("this optimizer has no `grad_scaler`; use `set_grad_scale`".to_owned()));
        }
        self.queue.write_buffer(&self.tensors, 0, bytemuck::bytes_of(&(scale as f32)));
        Ok(())
    }

    /// Makes every bracket miss from the next step on, for tests.
    #[doc(hidden)]
    pub fn force_miss(&self, miss: Miss) {
        for (i, tensor) in self.plan.tensors.iter().enumerate() {
            let class = self.plan.blocks[tensor.block].class;
            let exact = self.plan.classes[class].policy == PolicyKind::Mgup;
            let Some(sampling) = tensor.sampling.filter(|_| exact) else { continue };
            let sampled = sampling.coordinates() as u32;
            let (first, words) = match miss {
                Miss::Above => (7, [sampled * 3 / 4, sampled]),
                Miss::Below => (7, [0, sampled / 4]),
                Miss::Overflow => (10, [0, self.plan.words[i].list]),
                Miss::Boundary => (11, [self.plan.words[i].list, 0]),
            };
            let offset = self.entry(i) + 4 * first;
            self.queue.write_buffer(&self.tensors, offset, bytemuck::cast_slice(&words));
        }
    }

    /// Fills what the kernels of a step hand to each other with nonsense, for tests.
    #[doc(hidden)]
    pub fn poison_scratch(&self) {
        for (buffer, &size) in self.scratch.iter().zip(&self.plan.scratch_blocks) {
            self.queue.write_buffer(buffer, 0, &vec![0xee; size as usize]);
        }
    }

    fn read(
        &self,
        name: &str,
        slice: TensorSlice<'_>,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + use<>, Error> {
        let bytes = self.fetch(name, &[(slice.buffer, slice.offset, slice.size)])?;
        Ok(async move { Ok(bytemuck::pod_collect_to_vec(&bytes.await?)) })
    }

    /// Begins a copy to the host, on a device that is there.
    pub(super) fn fetch(
        &self,
        what: &str,
        ranges: &[(&wgpu::Buffer, u64, u64)],
    ) -> Result<impl Future<Output = Result<Vec<u8>, Error>> + use<>, Error> {
        self.probe.check()?;
        scope::watch(&self.device, || readback::read(&self.device, &self.queue, what, ranges))
    }
}

/// Blocking reads; not on the web, where nothing may block.
#[cfg(not(target_arch = "wasm32"))]
impl GpuOptimizer {
    /// [`read_param`](Self::read_param), blocking.
    ///
    /// # Errors
    /// As for [`read_param`](Self::read_param).
    pub fn read_param_blocking(&self, name: &str) -> Result<Vec<f32>, Error> {
        readback::block_on(&self.device, self.read_param(name)?)
    }

    /// [`read_state`](Self::read_state), blocking.
    ///
    /// # Errors
    /// As for [`read_state`](Self::read_state).
    pub fn read_state_blocking(&self, name: &str, state: &str) -> Result<Vec<f32>, Error> {
        readback::block_on(&self.device, self.read_state(name, state)?)
    }

    /// [`read_selected`](Self::read_selected), blocking.
    ///
    /// # Errors
    /// As for [`read_selected`](Self::read_selected).
    pub fn read_selected_blocking(&self, name: &str) -> Result<Selected, Error> {
        readback::block_on(&self.device, self.read_selected(name)?)
    }

    /// [`read_steps`](Self::read_steps), blocking.
    ///
    /// # Errors
    /// As for [`read_steps`](Self::read_steps).
    pub fn read_steps_blocking(&self, name: &str) -> Result<u64, Error> {
        readback::block_on(&self.device, self.read_steps(name)?)
    }

    /// [`read_guarded`](Self::read_guarded), blocking.
    ///
    /// # Errors
    /// As for [`read_guarded`](Self::read_guarded).
    pub fn read_guarded_blocking(&self) -> Result<Guarded, Error> {
        readback::block_on(&self.device, self.read_guarded()?)
    }

    /// [`read_grad_norm`](Self::read_grad_norm), blocking.
    ///
    /// # Errors
    /// As for [`read_grad_norm`](Self::read_grad_norm).
    pub fn read_grad_norm_blocking(&self) -> Result<f32, Error> {
        readback::block_on(&self.device, self.read_grad_norm()?)
    }
}
