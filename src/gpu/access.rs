//! Reading and writing parameters, gradients, state, and what a step found.

use std::mem::offset_of;
use std::sync::atomic::Ordering;

use super::held::{AVERAGE, MASTER, RATES, Stored, joined, upper_halves};
use super::optimizer::{Counts, GpuOptimizer, Miss, Selected};
use super::slices::TensorSlice;
use super::target::Target;
use super::{readback, scope};
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::{HEADER_BYTES, Header, TENSOR_BYTES, Tensor};
use crate::plan::storage::BlockBuffers;
use crate::recipe::guard::{Guarded, NonFinite};
use crate::recipe::policy::Selects;
use crate::recipe::ranges::{INVERTIBLE, NOT_NEGATIVE, check};

impl From<Header> for Guarded {
    fn from(Header { grad_norm, loss_scale, skip, skipped, .. }: Header) -> Self {
        Self { grad_norm, loss_scale, skipped: skip == 1, skipped_steps: skipped.into() }
    }
}

impl GpuOptimizer {
    /// The place of a parameter in the optimizer's buffers. Bind it, or copy to and from it.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Ownership`] if your buffers hold the parameters.
    pub fn param(&self, name: &str) -> Result<TensorSlice<'_>> {
        self.arena(name, |block| block.param)
    }

    /// The place of a gradient in the optimizer's buffers. Write it there with your own kernel.
    ///
    /// # Errors
    /// As for [`param`](Self::param).
    pub fn grad(&self, name: &str) -> Result<TensorSlice<'_>> {
        self.arena(name, |block| block.grad)
    }

    fn arena(&self, name: &str, which: fn(&BlockBuffers) -> usize) -> Result<TensorSlice<'_>> {
        let tensor = self.plan.tensor_index(name)?;
        self.has_arenas(true, "this optimizer steps your buffers and does not hold parameters or gradients")?;
        Ok(self.slice_of(self.holder(tensor).stored(which)))
    }

    /// The names of a tensor's state.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn state_names(&self, name: &str) -> Result<impl Iterator<Item = &'static str> + use<>> {
        let states = self.plan.base_of(self.plan.tensor(name)?).row().states.iter();
        let names = states.map(|state| state.name).chain(self.has_masters().then_some(MASTER));
        Ok(names.chain(self.plan.average.map(|_| AVERAGE)))
    }

    /// The place of a state in the optimizer's buffers. It is in f32, or in bytes if its recipe has
    /// [`StateFormat::EightBit`](crate::StateFormat::EightBit) and the state has a number for each coordinate.
    ///
    /// - AdamW: `exp_avg` and `exp_avg_sq`. The latter has one number per row under
    ///   [`SecondMoment::Row`](crate::base::SecondMoment::Row).
    /// - Lion: `exp_avg`.
    /// - Muon, and SGD and RMSprop with a momentum: `momentum_buffer`.
    /// - Others: see [`state_names`](Self::state_names). A third state of AdamW and Adam is `max_exp_avg_sq`.
    /// - A state that is one number, such as the `accumulator` of AdaGO, can be copied, but not bound: its offset is not aligned.
    /// - `master`: the parameter in f32, if it is stored in two bytes.
    /// - `average`: the average of the parameter over the steps, or the parameter itself during evaluation, in the format of
    ///   [`Average::precision`](crate::Average::precision). It begins with the first update;
    ///   see [`ParamGroups::with_average`](crate::ParamGroups::with_average).
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], [`Error::UnknownState`]; [`Error::Ownership`] if your buffers hold the state.
    pub fn state(&self, name: &str, state: &str) -> Result<TensorSlice<'_>> {
        Ok(self.stored_state(name, state)?.0)
    }

    /// The place of a state, and how it is stored.
    fn stored_state(&self, name: &str, state: &str) -> Result<(TensorSlice<'_>, Stored)> {
        let index = self.plan.tensor_index(name)?;
        self.has_state()?;
        let is_state = self.state_names(name)?.any(|known| known == state);
        let found = match state == MASTER {
            true => self.master(index).map(|master| (master, Stored::F32)),
            false => self.find(index, state).map(|held| (held.slice, held.format)),
        };
        found.filter(|_| is_state).ok_or_else(|| {
            let known = self.state_names(name).map(Iterator::collect::<Vec<_>>).unwrap_or_default().join(", ");
            Error::UnknownState { name: state.to_owned(), known }
        })
    }

    /// Writes a parameter from the host. If it is stored in two bytes, it is rounded, and its master is written too. The write takes
    /// effect at the next submit, before its commands.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.write_param("weight", &[0.5; 32])?;
    /// optimizer.write_grad("weight", &[0.1; 32])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`param`](Self::param); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_param(&self, name: &str, data: &[f32]) -> Result<()> {
        let param = self.param(name)?;
        let tensor = self.plan.tensor_index(name)?;
        if let Some(low) = self.low(tensor).filter(|_| !self.has_half_averages_in_place()) {
            self.write(name, "parameter", low, Stored::Low, data)?;
            let halves = upper_halves(data);
            return scope::watch(&self.device, || self.queue.write_buffer(param.buffer, param.offset, &halves));
        }
        self.write(name, "parameter", param, Stored::Float(self.plan.precision), data)?;
        let master = self.master(tensor);
        master.map_or(Ok(()), |master| self.write(name, "parameter", master, Stored::F32, data))
    }

    /// Writes a gradient from the host. If it is stored in two bytes, it is rounded. The write takes effect as for
    /// [`write_param`](Self::write_param).
    ///
    /// # Errors
    /// As for [`write_param`](Self::write_param).
    pub fn write_grad(&self, name: &str, data: &[f32]) -> Result<()> {
        self.write(name, "gradient", self.grad(name)?, Stored::Float(self.plan.precision), data)
    }

    /// Writes a state from the host, for example to resume a run of another program. Bytes round it to the nearest. Set the steps that it has seen with
    /// [`set_steps`](Self::set_steps). A written `average` counts as begun by step 1. The write takes effect as for
    /// [`write_param`](Self::write_param).
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// // State from elsewhere, after 1,000 steps.
    /// optimizer.write_state("weight", "exp_avg", &[0.01; 32])?;
    /// optimizer.write_state("weight", "exp_avg_sq", &[1e-4; 32])?;
    /// optimizer.set_steps(1000);
    /// optimizer.set_recorded_steps(1000); // for schedules
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`state`](Self::state); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_state(&self, name: &str, state: &str, data: &[f32]) -> Result<()> {
        let (place, format) = self.stored_state(name, state)?;
        self.write(name, "state", place, format, data)?;
        if state == MASTER {
            self.set_mastered(std::iter::once((self.plan.tensor_index(name)?, true)));
        } else if state == AVERAGE {
            self.set_averaged(std::iter::once((self.plan.tensor_index(name)?, Some(1))));
        }
        Ok(())
    }

    fn write(&self, name: &str, what: &'static str, to: TensorSlice<'_>, format: Stored, data: &[f32]) -> Result<()> {
        let given = data.len() as u64;
        // Fewer bytes may have padding.
        let numel = if format == Stored::F32 { to.size / 4 } else { self.plan.tensor(name)?.numel };
        ensure!(numel == given, Error::slice(name, what, format!("{given} values given, {numel} needed")));
        let bytes = format.encode(data);
        scope::watch(&self.device, || self.queue.write_buffer(to.buffer, to.offset, &bytes))
    }

    /// The place of the factors of a tensor's components: one f32 per component, which multiplies the learning rate and with it the
    /// weight decay. Write them there on the GPU, or bind them.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Tensor`] if its spec has no [`components`](crate::TensorSpec::with_components).
    pub fn rates(&self, name: &str) -> Result<TensorSlice<'_>> {
        let reason = "its spec has no components; add them with `with_components`".to_owned();
        let none = Error::Tensor { tensor: name.to_owned(), reason };
        self.find(self.plan.tensor_index(name)?, RATES).map(|held| held.slice).ok_or(none)
    }

    /// Writes the factors of a tensor's components, one per component, each ≥ 0 and finite. The write takes effect as for
    /// [`write_param`](Self::write_param).
    ///
    /// ```no_run
    /// # fn example(device: &wgpu_optim::wgpu::Device, queue: &wgpu_optim::wgpu::Queue) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec};
    /// // Points with a position, a color and a size, each with a learning rate of its own.
    /// let points = [TensorSpec::new("points", [1000, 7]).with_components(7)];
    /// let optimizer = GpuOptimizer::new_blocking(device, queue, &points, Recipe::adamw(1e-3))?;
    /// optimizer.write_rates("points", &[1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.1])?;
    /// let resource = optimizer.rates("points")?.binding(); // for a kernel that writes them
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`rates`](Self::rates); [`Error::Slice`] if there are more or fewer; [`Error::Recipe`] for a factor out of range.
    pub fn write_rates(&self, name: &str, factors: &[f32]) -> Result<()> {
        let slice = self.rates(name)?;
        for (i, &factor) in factors.iter().enumerate() {
            check(&format!("rates[{i}]"), factor.into(), NOT_NEGATIVE)?;
        }
        self.write(name, "rates", slice, Stored::F32, factors)
    }

    /// Records commands that set all gradients in the optimizer's buffers to 0. Sums of micro-batches stay.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer, encoder: &mut wgpu_optim::wgpu::CommandEncoder) -> Result<(), wgpu_optim::Error> {
    /// // Before kernels that add to the gradients.
    /// optimizer.zero_grad(encoder)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Ownership`] if your buffers hold the gradients.
    pub fn zero_grad(&self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.has_arenas(true, "this optimizer steps your buffers and does not hold gradients: clear your own")?;
        for block in &self.storage.blocks {
            encoder.clear_buffer(&self.buffers[block.grad], 0, None);
        }
        Ok(())
    }

    /// Forgets the micro-batches that were recorded since the last step, and records the clearing of what they have added up.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer, encoder: &mut wgpu_optim::wgpu::CommandEncoder) -> Result<(), wgpu_optim::Error> {
    /// if optimizer.micro_batches() > 0 {
    ///     optimizer.forget_micro_batches(encoder);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn forget_micro_batches(&mut self, encoder: &mut wgpu::CommandEncoder) {
        self.clear_sums_of(&mut Target::Encoder(encoder), &(0..self.plan.tensors.len()).collect::<Vec<_>>());
        (self.counts.micro_batches, self.counts.weights, self.counts.recorded_weight) = (0, 0.0, None);
        self.counts.has_sum.fill(false);
        self.submissions.forget_sums();
        // If this encoder is dropped, they are as they were.
        let ticket = self.submissions.ticket(self.plan.accumulates);
        encoder.on_submitted_work_done(move || ticket.done());
    }

    /// What the host counts, to be given back to [`rewind`](Self::rewind) if what was recorded since is not submitted.
    #[doc(hidden)]
    pub fn counts(&self) -> Counts {
        Counts { submissions: self.submissions.recorded, ..self.counts.clone() }
    }

    /// Counts as before.
    #[doc(hidden)]
    pub fn rewind(&mut self, counts: Counts) {
        self.submissions.rewind(counts.submissions);
        self.counts = counts;
    }

    /// Number of recorded steps that a tensor took part in, including those that the GPU skipped. [`read_steps`](Self::read_steps)
    /// leaves these out.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn steps(&self, name: &str) -> Result<u64> {
        Ok(self.counts.steps[self.plan.tensor_index(name)?])
    }

    /// Reads the steps that a tensor has taken: t of the bias corrections. Off the web, poll the device until the future is ready.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// let (recorded, taken) = (optimizer.steps("weight")?, optimizer.read_steps("weight")?.await?);
    /// println!("{} of {recorded} steps were skipped", recorded - taken);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_steps(&self, name: &str) -> Result<impl Future<Output = Result<u64>> + use<>> {
        let recorded = self.steps(name)?;
        let skipped = self.entry(self.plan.tensor_index(name)?, offset_of!(Tensor, skipped), 4);
        self.read(name, &[skipped], move |bytes| {
            let skipped: u32 = bytemuck::pod_read_unaligned(&bytes);
            Ok(recorded.saturating_sub(skipped.into()))
        })
    }

    /// Sets the number of steps that every tensor has taken, as when resuming; at most 2⁶³ − 1, the largest that a checkpoint holds.
    pub fn set_steps(&mut self, steps: u64) {
        (0..self.counts.steps.len()).for_each(|tensor| self.set_steps_of(tensor, steps));
    }

    pub(super) fn set_steps_of(&mut self, tensor: usize, steps: u64) {
        self.counts.steps[tensor] = steps.min(i64::MAX as u64);
        if self.plan.gradients.skips {
            self.write_entry(tensor, offset_of!(Tensor, skipped), &[0]);
        }
    }

    /// Sets the number of steps that one tensor has taken, as when resuming tensors that have not always stepped together.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// // The embedding has seen every step, the adapter only the last ten.
    /// optimizer.set_tensor_steps("embedding", 1000)?;
    /// optimizer.set_tensor_steps("adapter", 10)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTensor`]; [`Error::Ownership`] for an optimizer that holds its parameters, where all tensors step together.
    pub fn set_tensor_steps(&mut self, name: &str, steps: u64) -> Result<()> {
        self.has_arenas(false, "this optimizer holds its parameters, so all tensors step together: use `set_steps`")?;
        self.set_steps_of(self.plan.tensor_index(name)?, steps);
        Ok(())
    }

    /// Reads a parameter, its master where it is stored in two bytes. Off the web, poll the device until the future is ready.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// let weight: Vec<f32> = optimizer.read_param("weight")?.await?;
    /// let weight = optimizer.read_param_blocking("weight")?; // the same off the web
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`param`](Self::param), and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_param(&self, name: &str) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        self.param(name)?;
        let (tensor, numel) = (self.plan.tensor_index(name)?, self.plan.tensor(name)?.numel as usize);
        let (slice, format) = self.held_param(tensor);
        let low = self.low(tensor).filter(|_| !self.has_half_averages_in_place());
        let slices: Vec<_> = [slice].into_iter().chain(low).collect();
        let (size, is_split) = (slice.size as usize, low.is_some());
        self.read(name, &slices, move |bytes| {
            let (own, low) = bytes.split_at(size);
            Ok(if is_split { joined(own, low, numel) } else { format.decode(own, numel) })
        })
    }

    /// Reads a state. Off the web, poll the device until the future is ready.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// for state in optimizer.state_names("weight")? {
    ///     let values = optimizer.read_state("weight", state)?.await?;
    ///     println!("{state}: {} values", values.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`state`](Self::state), and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_state(&self, name: &str, state: &str) -> Result<impl Future<Output = Result<Vec<f32>>> + use<>> {
        let ((place, format), numel) = (self.stored_state(name, state)?, self.plan.tensor(name)?.numel as usize);
        let count = if format == Stored::F32 { place.size as usize / 4 } else { numel };
        self.read(name, &[place], move |bytes| Ok(format.decode(&bytes, count)))
    }

    /// Reads what selection did to a tensor in the last step that ran. For a tensor that was left out of that step, it means
    /// nothing. Off the web, poll the device until the future is ready.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::Selected;
    /// let Selected { k, count, candidates, missed, .. } = optimizer.read_selected("weight")?.await?;
    /// println!("{count} of K = {k} selected, {candidates} ranked, bracket missed: {missed}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], and [`Error::DeviceLost`], when called; [`Error::Readback`], when awaited.
    pub fn read_selected(&self, name: &str) -> Result<impl Future<Output = Result<Selected>> + use<>> {
        let counts = self.plan.policy_of(self.plan.tensor(name)?).row().counts;
        let entry = self.entry(self.plan.tensor_index(name)?, 0, TENSOR_BYTES);
        let what = name.to_owned();
        self.read(name, &[entry], move |bytes| {
            let found: Tensor = readback::decode(&what, &bytes)?;
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
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// let norm: f32 = optimizer.read_grad_norm()?.await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::SettingOff`] if the optimizer does not clip, when called; as for [`read_guarded`](Self::read_guarded), when awaited.
    pub fn read_grad_norm(&self) -> Result<impl Future<Output = Result<f32>> + use<>> {
        self.clips()?;
        let guarded = self.read_guarded()?;
        Ok(async move { Ok(guarded.await?.grad_norm) })
    }

    /// Reads the norm of the gradients of the last step, whether the step was skipped, and the scale of the next loss. Off the web, poll
    /// the device until the future is ready.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::Guarded;
    /// let Guarded { skipped, skipped_steps, loss_scale, .. } = optimizer.read_guarded()?.await?;
    /// if skipped {
    ///     println!("{skipped_steps} steps were skipped so far; the loss is scaled by {loss_scale}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::SettingOff`] if the optimizer neither clips a norm nor skips steps, when called. [`Error::Readback`], when awaited, and
    /// [`Error::NonFinite`] under [`NonFinite::Error`] if a step was skipped since this was last read.
    pub fn read_guarded(&self) -> Result<impl Future<Output = Result<Guarded>> + use<>> {
        let setting = "`max_grad_norm`, `grad_scaler` and `non_finite`";
        let advice = "set one of them in its parameter groups to clip gradients or to check that they are finite";
        ensure!(self.plan.gradients.guarded, Error::SettingOff { setting, advice });
        let (what, checked) = ("what the guard found", self.checked());
        let decode = move |bytes: Vec<u8>| Ok(checked(readback::decode(what, &bytes)?)?.into());
        self.read(what, &[TensorSlice { size: HEADER_BYTES, ..TensorSlice::whole(self.table()) }], decode)
    }

    /// Refuses a header of the tensors' table under [`NonFinite::Error`] if a step was skipped since one was last refused.
    pub(super) fn checked(&self) -> impl FnOnce(Header) -> Result<Header> + use<> {
        let fails = self.groups.non_finite() == NonFinite::Error;
        let tensors = self.plan.tensors.iter().filter(|_| fails);
        let names: Vec<_> = tensors.map(|tensor| tensor.spec.name.clone()).collect();
        let reported = self.reported.clone();
        move |header| {
            let is_new = header.skipped > reported.fetch_max(header.skipped, Ordering::Relaxed);
            let broken = names.get(header.broken as usize).map_or("unknown (an earlier step)", String::as_str);
            let (tensor, steps) = (broken.to_owned(), header.skipped.into());
            ensure!(!(fails && is_new), Error::NonFinite { tensor, steps });
            Ok(header)
        }
    }

    /// The factor for the next loss: one f32 on the GPU. Bind it as a uniform or as read-only storage, or copy it. Steps change it. It is 1
    /// without a [`GradScaler`](crate::GradScaler).
    pub fn loss_scale(&self) -> TensorSlice<'_> {
        TensorSlice { size: 4, ..TensorSlice::whole(self.table()) }
    }

    /// Sets the scale of the next loss, 2⁻¹²⁶ to 2¹²⁶. The write takes effect at the next submit, before its commands.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.set_loss_scale(1024.0)?; // the scale that another program had found
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not within 2⁻¹²⁶ to 2¹²⁶; [`Error::SettingOff`] for an optimizer without a
    /// [`GradScaler`](crate::GradScaler).
    pub fn set_loss_scale(&self, scale: f64) -> Result<()> {
        check("loss_scale", scale, INVERTIBLE)?;
        let (setting, advice) = ("`grad_scaler`", "use `set_grad_scale` to scale gradients from the host");
        ensure!(self.groups.grad_scaler().is_some(), Error::SettingOff { setting, advice });
        self.queue.write_buffer(self.table(), 0, bytemuck::bytes_of(&(scale as f32)));
        Ok(())
    }

    /// Makes every bracket miss from the next step on, for tests.
    #[doc(hidden)]
    pub fn force_miss(&self, miss: Miss) {
        for (i, tensor) in self.plan.tensors.iter().enumerate() {
            let exact = self.plan.policy_of(tensor).selects() == Selects::Exact;
            let Some(sampling) = tensor.sampling.filter(|_| exact) else { continue };
            let sampled = sampling.coordinates() as u32;
            let ranks = offset_of!(Tensor, rank_high);
            match miss {
                Miss::Above => self.write_entry(i, ranks, &[sampled * 3 / 4, sampled]),
                Miss::Below => self.write_entry(i, ranks, &[0, sampled / 4]),
                Miss::Overflow => self.write_entry(i, offset_of!(Tensor, capacity), &[0]),
                Miss::Boundary => self.write_entry(i, offset_of!(Tensor, list_capacity), &[0]),
            }
        }
    }

    /// Fills what the kernels of a step hand to each other with nonsense, for tests.
    #[doc(hidden)]
    pub fn poison_scratch(&self) {
        for buffer in self.storage.scratch.iter().map(|&scratch| &self.buffers[scratch]) {
            self.queue.write_buffer(buffer, 0, &vec![0xee; buffer.size() as usize]);
        }
    }

    /// Begins a copy of slices to the host, on a device that is there. The future decodes them.
    pub(super) fn read<T, F: FnOnce(Vec<u8>) -> Result<T>>(
        &self,
        what: &str,
        slices: &[TensorSlice<'_>],
        decode: F,
    ) -> Result<impl Future<Output = Result<T>> + use<T, F>> {
        self.probe.check()?;
        let copy = || readback::read(&self.device, &self.queue, what, slices);
        let bytes = scope::watch(&self.device, copy)?;
        Ok(async move { decode(bytes.await?) })
    }
}
