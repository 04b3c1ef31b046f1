//! Steps: what they are given, and how they are recorded. Arenas are a caller whose buffers never change.

use std::collections::{BTreeMap, HashMap};
use std::mem::offset_of;
use std::sync::Arc;

use super::held::GRAD_SUM;
use super::optimizer::{GpuOptimizer, Prepared};
use super::requirements::plan_limits;
use super::scope;
use super::slices::{self, TensorBuffers, TensorSlice};
use super::submissions::lock;
use super::target::Target;
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::{Header, STRIDE, Scalars};
use crate::plan::batches::{Place, Placement};
use crate::plan::layout::Ownership;
use crate::plan::program::When;
use crate::plan::scalars::UniformBytes;
use crate::plan::stage::Pair;
use crate::plan::work::{Bound, Entry, Group, Placements, work};
use crate::recipe::average::Average;
use crate::recipe::ranges::{POSITIVE, check};

/// For each spec, where the caller has its tensor, if it is part of the step.
pub(super) type Given<'a> = [Option<TensorBuffers<'a>>];

/// The scalars of a step, and which of them each spec has.
type StepScalars = (Vec<u32>, Vec<Scalars>);

impl GpuOptimizer {
    /// Records one step over all tensors, with the gradients in the optimizer's buffers, and never submits. Several steps may go into one
    /// encoder.
    ///
    /// One rule: submit each encoder exactly once, in the order of recording. Recording fixes the step's count t, its learning rate and
    /// its place among micro-batches; another order of submits cannot be detected.
    ///
    /// - A recorded step counts, even if its encoder is dropped.
    /// - If an encoder with a micro-batch is dropped, the next call is an error. An encoder that wgpu refuses to submit counts as submitted.
    /// - Recording blocks only if too many steps (at least 8, at most 256) are not finished. wgpu may then run `on_submitted_work_done`
    ///   callbacks.
    ///
    /// With [accumulation](crate::ParamGroups::with_accumulation), each call records a micro-batch, and the last one also the step.
    ///
    /// # Errors
    /// After an error, nothing is recorded.
    ///
    /// - [`Error::Ownership`] for an optimizer that steps your buffers.
    /// - [`Error::RingFull`] if too many recorded steps wait to be submitted.
    /// - [`Error::Evaluating`] between [`evaluate`](Self::evaluate) and [`train`](Self::train).
    /// - [`Error::Recipe`] if the factor of a schedule's function, or the gradient scale over the sum of weights, is out of range.
    /// - [`Error::MicroBatchDropped`] after an encoder with a micro-batch was dropped, until
    ///   [`forget_micro_batches`](Self::forget_micro_batches).
    pub fn record(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.record_given(&mut Target::Encoder(encoder), None)
    }

    /// Records one step over all tensors into a compute pass that stays open, as [`record`](Self::record) does into an encoder. It sets
    /// a pipeline and bind groups: set your own again before you dispatch.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer, encoder: &mut wgpu_optim::wgpu::CommandEncoder) -> Result<(), wgpu_optim::Error> {
    /// let mut pass = encoder.begin_compute_pass(&Default::default());
    /// // … the dispatches that write the gradients …
    /// optimizer.record_in_pass(&mut pass)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`record`](Self::record), and [`Error::InPass`] with [telemetry](crate::ParamGroups::with_telemetry).
    pub fn record_in_pass(&mut self, pass: &mut wgpu::ComputePass<'_>) -> Result<()> {
        self.record_given(&mut Target::Pass(pass), None)
    }

    /// Records one step over your buffers, and never submits. `buffers` has one item per tensor, in the order of the specs: a
    /// [`TensorBuffers`], or an `Option` of one. `None` leaves a tensor out of this step, with its state and step count unchanged. Tensors
    /// share dispatches if their parameters lie in one buffer and their gradients in one buffer.
    ///
    /// Parameters are changed in place. Every range is bound as read-write storage. Slices may share a buffer, but must not overlap, except
    /// gradients with each other.
    ///
    /// # Errors
    /// After an error, nothing is recorded.
    ///
    /// - [`Error::Ownership`] for an optimizer that holds its parameters.
    /// - [`Error::Count`] if the number of items is not the number of tensors.
    /// - [`Error::Slice`] for a slice that has the wrong size, is misaligned, overlaps another, reaches beyond its buffer, or whose buffer
    ///   lacks `STORAGE`; and for state that is missing or not expected.
    /// - [`Error::Recipe`] for a learning rate out of range.
    /// - Off the web, [`Error::Gpu`] for a buffer of another device.
    /// - [`Error::RingFull`] and [`Error::MicroBatchDropped`] as for [`record`](Self::record).
    pub fn record_with<'a, B>(&mut self, encoder: &mut wgpu::CommandEncoder, buffers: &[B]) -> Result<()>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let buffers: Vec<_> = buffers.iter().map(|&buffers| buffers.into()).collect();
        self.record_given(&mut Target::Encoder(encoder), Some(&buffers))
    }

    /// Records one step over your buffers into a compute pass that stays open, as [`record_with`](Self::record_with) does into an encoder.
    /// It sets a pipeline and bind groups: set your own again before you dispatch. An `accumulator` given as state needs the usage
    /// `STORAGE`.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer, pass: &mut wgpu_optim::wgpu::ComputePass<'_>, [weight, grad]: [&wgpu_optim::wgpu::Buffer; 2]) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{TensorBuffers, TensorSlice};
    /// let weight = TensorBuffers::new(TensorSlice::whole(weight), TensorSlice::whole(grad));
    /// optimizer.record_with_in_pass(pass, &[weight])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with), and [`Error::InPass`] with [telemetry](crate::ParamGroups::with_telemetry).
    pub fn record_with_in_pass<'a, B>(&mut self, pass: &mut wgpu::ComputePass<'_>, buffers: &[B]) -> Result<()>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let buffers: Vec<_> = buffers.iter().map(|&buffers| buffers.into()).collect();
        self.record_given(&mut Target::Pass(pass), Some(&buffers))
    }

    /// Records a step over arenas, or over the caller's buffers.
    fn record_given(&mut self, target: &mut Target<'_, '_>, given: Option<&Given<'_>>) -> Result<()> {
        let refusal = match given {
            None => "this optimizer steps your buffers: use `record_with` or `step_with`",
            Some(_) => "this optimizer holds its parameters: use `record` or `step`",
        };
        self.has_arenas(given.is_none(), refusal)?;
        let in_pass = matches!(target, Target::Pass(_));
        ensure!(!in_pass || self.groups.telemetry.is_none(), Error::InPass { setting: "`telemetry`" });
        self.check_submissions()?;
        self.trains()?;
        if let Some(given) = given {
            let alignment = u64::from(self.device.limits().min_storage_buffer_offset_alignment);
            slices::validate(&self.plan, given, alignment, in_pass)?;
        }
        let mut is_present = vec![false; self.plan.tensors.len()];
        for (spec, &tensor) in self.plan.order.iter().enumerate() {
            is_present[tensor] = given.is_none_or(|given| given[spec].is_some());
        }
        let present: Vec<usize> = (0..is_present.len()).filter(|&tensor| is_present[tensor]).collect();
        // The last of the micro-batches makes a step.
        let is_last = self.counts.micro_batches + 1 >= self.groups.accumulation();
        let steps = is_last && !present.is_empty();
        let is_observed = |every: u32| self.counts.recorded.is_multiple_of(every.into());
        let observes = steps && self.groups.telemetry.is_some_and(is_observed);
        let updates = steps && self.updates_averages(&present);
        let (scalars_of, scalars) = if steps { self.scalars_of(given)? } else { Default::default() };
        let runs = |when: When| match when {
            When::MicroBatch => true,
            // In arenas the optimizer itself writes the parameters.
            When::Masters => steps && given.is_some(),
            When::Step | When::Round => steps,
            When::Observed => observes,
            When::Average => updates,
            When::Evaluate | When::Train => false,
        };
        // What wgpu may refuse comes before anything is recorded. Over arenas, all is the same as in the last call as long as the scalars
        // are: so it is prepared for every kind of call.
        let prepared = match &self.prepared {
            Some(known) if given.is_none() && (scalars_of.is_empty() || known.scalars_of == scalars_of) => {
                known.clone()
            }
            _ => {
                let prepares = |when: When| given.is_none() || runs(when);
                Arc::new(scope::watch(&self.device, || self.prepare(given, scalars_of, &prepares))?)
            }
        };
        self.prepared = given.is_none().then(|| prepared.clone());
        let mut uniforms = UniformBytes::default();
        scalars.iter().for_each(|scalars| uniforms.push(scalars));
        let grids = uniforms.0.len() as u64;
        prepared.work.grids.iter().for_each(|grid| uniforms.push(grid));
        let weighs = self.plan.accumulates && self.counts.recorded_weight != Some(self.weight);
        let weight = uniforms.0.len() as u64;
        if weighs {
            uniforms.push(&self.weight);
        }
        let chunks = &prepared.work.chunks;
        let is_planned = uniforms.0.is_empty() && chunks.is_empty();
        let slot = if is_planned { None } else { Some(self.ring.put(&self.queue, &uniforms.0, chunks)?) };
        let [scalars, chunks] = slot.as_ref().map_or([0; 2], |slot| [slot.uniforms, slot.chunks]);

        let ticket = self.submissions.ticket(self.plan.accumulates);
        if let Some(slot) = slot.as_ref().filter(|_| weighs) {
            let from = TensorSlice { offset: slot.uniforms + weight, size: 4, ..TensorSlice::whole(&self.ring.buffer) };
            let to =
                TensorSlice { offset: offset_of!(Header, weight) as u64, size: 4, ..TensorSlice::whole(self.table()) };
            target.copy_word(&self.pipelines, from, to);
            self.counts.recorded_weight = Some(self.weight);
        }
        if steps {
            self.copy_accumulators(target, given, true);
        }
        self.record_prepared(target, &prepared, &runs, [scalars + grids, scalars, chunks]);
        if self.plan.accumulates {
            self.counts.micro_batches = if is_last { 0 } else { self.counts.micro_batches + 1 };
            self.counts.weights = if is_last { 0.0 } else { self.counts.weights + f64::from(self.weight) };
            present.iter().for_each(|&tensor| self.counts.has_sum[tensor] = true);
        }
        if steps {
            if let (true, Target::Encoder(encoder)) = (observes, &mut *target) {
                self.read_observations(encoder, &present);
            }
            self.copy_accumulators(target, given, false);
            self.clear_sums_of(target, &present);
            for &tensor in &present {
                self.counts.steps[tensor] += 1;
                self.counts.has_sum[tensor] = false;
            }
            self.counts.recorded = self.counts.recorded.saturating_add(1);
        }
        target.on_done(move || {
            drop(slot);
            ticket.done();
        });
        Ok(())
    }

    /// Whether this step may update the averages of tensors. The GPU knows how many steps were skipped.
    fn updates_averages(&self, present: &[usize]) -> bool {
        let is_due = |average: Average| present.iter().any(|&tensor| average.is_due(self.counts.steps[tensor] + 1));
        self.plan.average.is_some_and(|average| self.plan.gradients.skips || is_due(average))
    }

    /// # Errors
    /// As for [`Submissions::check`](super::submissions::Submissions::check); a lost device, which drops what was submitted, comes first.
    pub(super) fn check_submissions(&self) -> Result<()> {
        self.submissions.check().or_else(|error| {
            self.probe.check()?;
            Err(error)
        })
    }

    /// The scalars of a step: for each group, or, where tensors have taken different numbers of steps or have learning rates of their own,
    /// for each that occurs.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a learning rate or a schedule's function leaves its range.
    fn scalars_of(&self, given: Option<&Given<'_>>) -> Result<StepScalars> {
        // Row, step and learning rate.
        type Key = (usize, u64, Option<u64>);
        let rows = self.groups.rows(self.counts.recorded)?;
        let weights = if self.plan.accumulates { self.counts.weights + f64::from(self.weight) } else { 1.0 };
        let grad_scale = self.grad_scale / weights;
        check("grad_scale over the sum of weights", grad_scale, POSITIVE)?;
        let key = |(spec, &tensor): (usize, &usize)| -> Option<Key> {
            let lr = given.map_or(Some(None), |given| Some(given[spec]?.lr))?;
            Some((self.plan.tensors[tensor].row, self.counts.steps[tensor] + 1, lr.map(f64::to_bits)))
        };
        let keys: Vec<Option<Key>> = self.plan.order.iter().enumerate().map(key).collect();
        // What occurs, with a tensor where it does, and then with its number.
        let present = keys.iter().zip(&self.plan.order).filter_map(|(key, &tensor)| Some(((*key)?, tensor)));
        let mut distinct: BTreeMap<Key, usize> = present.collect();
        let (_, t, _) = distinct.keys().next().copied().unwrap_or_default();
        if distinct.keys().all(|&(_, other, lr)| lr.is_none() && other == t) {
            distinct.extend((0..rows.len()).map(|row| ((row, t, None), 0)));
        }
        let mut scalars = Vec::with_capacity(distinct.len());
        for (&(row, t, lr), number) in &mut distinct {
            let mut recipe = rows[row];
            if let Some(lr) = lr {
                let spec = &self.plan.tensors[*number].spec;
                recipe = self.initial[spec.group].with_lr(f64::from_bits(lr));
                recipe.validate()?;
                recipe = self.groups.scale(spec.group, recipe, self.counts.recorded)?;
                recipe = recipe.on(spec);
            }
            *number = scalars.len();
            scalars.push(Scalars::new(&recipe, t, &self.groups, grad_scale));
        }
        Ok((keys.iter().map(|key| key.map_or(0, |key| distinct[&key] as u32)).collect(), scalars))
    }

    /// What a call runs: its dispatches, where the tensors lie now, and their bind groups.
    pub(super) fn prepare(
        &self,
        given: Option<&Given<'_>>,
        scalars_of: Vec<u32>,
        runs: &dyn Fn(When) -> bool,
    ) -> Prepared {
        // The caller's buffers are numbered after the optimizer's own.
        let mut buffers: Vec<&wgpu::Buffer> = self.buffers.iter().collect();
        // wgpu tells buffers apart by their identity.
        #[allow(clippy::mutable_key_type)]
        let mut numbers = HashMap::new();
        for own in given.into_iter().flatten().flatten() {
            for TensorSlice { buffer, .. } in [&own.param, &own.grad].into_iter().chain(own.state) {
                numbers.entry(*buffer).or_insert_with(|| {
                    buffers.push(buffer);
                    buffers.len() - 1
                });
            }
        }
        let place = |slice: &TensorSlice<'_>, unit: u64| {
            let (buffer, TensorSlice { offset, size, .. }) = (numbers[slice.buffer], *slice);
            Place { buffer, offset, size, unit }
        };
        let unit = self.plan.precision.bytes();
        let placement = |pair: Pair, spec: usize| {
            let tensor = self.plan.order[spec];
            let given = match given {
                None => None,
                Some(given) => Some(given[spec].map(|own| [own.param, own.grad].map(|slice| place(&slice, unit)))?),
            };
            let own = self.plan.tensors[tensor].row as u32;
            let row = scalars_of.get(spec).filter(|_| pair != Pair::Sums).copied().unwrap_or(own);
            Some(Placement::new((&self.plan, &self.storage), tensor, pair, given, row))
        };
        let of = |pair: Pair| (0..self.plan.order.len()).filter_map(|spec| placement(pair, spec)).collect();
        let given = self.plan.order.iter().zip(given.into_iter().flatten());
        let states: HashMap<usize, &[TensorSlice<'_>]> =
            given.filter_map(|(&tensor, own)| Some((tensor, own.as_ref()?.state))).collect();
        let state = |tensor: usize, state: usize| place(&states[&tensor][state], 4);
        let placements = Placements { of: &of, state: &state };
        let limits = self.device.limits();
        let limits = (limits.max_compute_workgroups_per_dimension, plan_limits(&limits).binding);
        let work = work((&self.plan, &self.storage, &self.stages), &placements, runs, limits);
        let groups = work.groups.iter().map(|group| self.bind(group, &buffers)).collect();
        let none = self.bind(&Group(Vec::new()), &buffers);
        Prepared { work, groups, none, scalars_of }
    }

    /// The bind group of ranges of the optimizer's buffers and the caller's. It is kept if it is of the optimizer's alone.
    fn bind(&self, group: &Group, buffers: &[&wgpu::Buffer]) -> wgpu::BindGroup {
        let bind = || {
            let bindings: Vec<u32> = group.0.iter().map(|entry| entry.binding).collect();
            let range = |&Entry { binding, buffer, offset, size }: &Entry| {
                let buffer = buffers[buffer];
                (binding, TensorSlice { buffer, offset, size })
            };
            self.pipelines.bind("storage", &self.pipelines.layout(&bindings), group.0.iter().map(range))
        };
        match group.0.iter().all(|entry| entry.buffer < self.buffers.len()) {
            true => lock(&self.bind_groups).entry(group.clone()).or_insert_with(bind).clone(),
            false => bind(),
        }
    }

    /// Records the dispatches; the grids, scalars and chunks of the step lie at these offsets of the ring.
    pub(super) fn record_prepared(
        &self,
        target: &mut Target<'_, '_>,
        prepared: &Prepared,
        runs: &dyn Fn(When) -> bool,
        offsets: [u64; 3],
    ) {
        let runs = |bound: &&Bound| runs(self.stages.all[bound.stage].when);
        let mut dispatches = prepared.work.dispatches.iter().filter(runs).peekable();
        if dispatches.peek().is_some() {
            target.dispatch(|pass| dispatches.for_each(|bound| self.dispatch(pass, prepared, bound, offsets)));
        }
    }

    /// Records one of them.
    fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        prepared: &Prepared,
        bound: &Bound,
        [grids, scalars, chunks]: [u64; 3],
    ) {
        pass.set_pipeline(&self.compiled[bound.kernel]);
        let grid = STRIDE * bound.grid as u64;
        let scalars = scalars + STRIDE * u64::from(bound.scalars);
        let (tables, offsets) = match bound.is_planned {
            true => (&self.ring.tables[0], [grid, scalars, 0]),
            false => (&self.ring.tables[1], [grids + grid, scalars, chunks]),
        };
        pass.set_bind_group(0, tables, &offsets.map(|offset| offset as u32));
        let last = bound.groups.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        for (number, group) in (1..).zip(&bound.groups[..last]) {
            pass.set_bind_group(number, group.map_or(&prepared.none, |group| &prepared.groups[group]), &[]);
        }
        let [x, y, z] = bound.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }

    /// Submits stages over arenas that no scalars go into.
    pub(super) fn submit_own(&self, when: When) {
        if self.plan.ownership == Ownership::Arenas && self.stages.all.iter().any(|stage| stage.when == when) {
            let mut encoder = self.encoder();
            let runs = |other: When| other == when;
            let prepared = self.prepare(None, Vec::new(), &runs);
            self.record_prepared(&mut Target::Encoder(&mut encoder), &prepared, &runs, [0; 3]);
            self.queue.submit([encoder.finish()]);
        }
    }

    /// Records the clearing of the sums of tensors, in the order of the plan: neighbors in one go.
    pub(super) fn clear_sums_of(&self, target: &mut Target<'_, '_>, tensors: &[usize]) {
        for run in tensors.chunk_by(|&a, &b| b == a + 1 && self.plan.tensors[a].block == self.plan.tensors[b].block) {
            let sums = [run[0], run[run.len() - 1]].map(|tensor| Some(self.find(tensor, GRAD_SUM)?.slice));
            let [Some(first), Some(last)] = sums else { return };
            let size = last.offset + last.size - first.offset;
            target.clear(&self.pipelines, TensorSlice { size, ..first });
        }
    }

    /// The numbers per tensor, where the caller holds the state: to the entries of the tensors, or back.
    fn copy_accumulators(&self, target: &mut Target<'_, '_>, given: Option<&Given<'_>>, to_entries: bool) {
        let Some(given) = given.filter(|_| self.plan.ownership == Ownership::Stateless) else { return };
        for (&tensor, own) in self.plan.order.iter().zip(given) {
            let base = self.plan.base_of(&self.plan.tensors[tensor]);
            let (Some(own), true) = (own, base.scalar_names().next().is_some()) else { continue };
            for (number, theirs) in own.state[base.state_bindings(false).len()..].iter().enumerate() {
                let entry = self.scalar_entry(tensor, number);
                let [from, to] = if to_entries { [*theirs, entry] } else { [entry, *theirs] };
                target.copy_word(&self.pipelines, from, to);
            }
        }
    }

    /// Records a step as [`record`](Self::record) does, and submits it. wgpu may run `on_submitted_work_done` callbacks inside this call:
    /// do not hold a lock that such a callback takes.
    ///
    /// # Errors
    /// As for [`record`](Self::record); [`Error::DeviceLost`], and off the web [`Error::Gpu`] for a buffer that was destroyed. The step
    /// does not count then.
    pub fn step(&mut self) -> Result<wgpu::SubmissionIndex> {
        self.submit(|optimizer, encoder| optimizer.record(encoder))
    }

    /// Records a step as [`record_with`](Self::record_with) does, and submits it as [`step`](Self::step) does.
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with); [`Error::DeviceLost`], and off the web [`Error::Gpu`] for a buffer that was destroyed. The
    /// step does not count then.
    pub fn step_with<'a, B>(&mut self, buffers: &[B]) -> Result<wgpu::SubmissionIndex>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        self.submit(|optimizer, encoder| optimizer.record_with(encoder, buffers))
    }

    /// Submits what `record` records, or takes it back.
    fn submit(
        &mut self,
        record: impl FnOnce(&mut Self, &mut wgpu::CommandEncoder) -> Result<()>,
    ) -> Result<wgpu::SubmissionIndex> {
        self.probe.check()?;
        let (before, mut encoder) = (self.counts(), self.encoder());
        record(self, &mut encoder)?;
        let submitted = scope::watch(&self.device, || self.queue.submit([encoder.finish()]));
        if submitted.is_err() {
            self.rewind(before);
        }
        submitted
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wgpu-optim.step");
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }
}
