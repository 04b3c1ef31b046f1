//! Steps: what they are given, and their dispatches.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Range;

use encase::ShaderType;

use super::{Counts, GpuOptimizer, operand_ranges, range, state_ranges};
use crate::batches::{self, Batch, Layout, Place, Placement};
use crate::error::Error;
#[cfg(doc)]
use crate::groups::ParamGroups;
use crate::kernel::{ACCUMULATOR, Grid, Kernel, Row, STRIDE};
use crate::passes::{Dispatch, Operands, Over, Schedule};
use crate::plan::{Chunk, Ownership, Tensor};
use crate::precision::Precision;
use crate::recipe::Recipe;
use crate::requirements::plan_limits;
use crate::ring::Slot;
use crate::scope;
use crate::slices::{self, Stored, TensorBuffers, TensorSlice};

impl GpuOptimizer {
    /// Records one step over all tensors, from the optimizer's own gradient arena, and never submits. Several steps may
    /// go into one encoder.
    ///
    /// One rule: submit each encoder once, in the order in which steps are recorded. The step's count t, its learning rate and its
    /// place among micro-batches are decided here, and nothing can tell later that steps changed places. A step counts from here on,
    /// also if its encoder is dropped; a micro-batch whose encoder is dropped is an error of the next call. An encoder that wgpu refuses
    /// at its submit counts as submitted. Recording blocks only when no slot is free; wgpu may then run `on_submitted_work_done`
    /// callbacks.
    ///
    /// With [accumulation](ParamGroups::with_accumulation) this records a micro-batch, and with the last one of them the step.
    ///
    /// # Errors
    /// [`Error::Ownership`] for an optimizer made with [`for_buffers`](Self::for_buffers). [`Error::RingFull`] when too
    /// many recorded steps (at least 8, at most 256) wait to be submitted; over the caller's buffers, micro-batches and parameters in
    /// two bytes make it up to four times fewer. [`Error::Recipe`] if a schedule's function leaves its
    /// range. [`Error::MicroBatchDropped`] after an encoder with a micro-batch was dropped, until
    /// [`forget_micro_batches`](Self::forget_micro_batches). Nothing is recorded then.
    pub fn record(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        if self.plan.ownership != Ownership::Arenas {
            return Err(Error::Ownership(
                "this optimizer was made for the caller's buffers: use `record_with`",
            ));
        }
        self.check_submissions()?;
        let steps = self.micro_batches + 1 >= self.groups.accumulation();
        let prepared = match steps {
            true => Some((self.groups.rows(self.recorded)?, self.ring.take(&self.device)?)),
            false => None,
        };
        self.record_own(encoder, &self.schedule.accumulate);
        self.micro_batches += 1;
        let ticket = self.submissions.ticket(self.plan.accumulates);
        let Some((rows, slot)) = prepared else {
            encoder.on_submitted_work_done(move || ticket.done());
            return Ok(());
        };

        // In arenas all tensors step together, though some may have begun later.
        let t = self.steps.iter().copied().max().unwrap_or(0) + 1;
        let mut bytes = SlotBytes::default();
        match &self.own_rows {
            None => rows.iter().for_each(|recipe| {
                bytes.push(&self.row(recipe, t));
            }),
            Some(own) => {
                for &(row, behind) in own {
                    bytes.push(&self.row(&rows[row], t - behind));
                }
            }
        }
        self.ring.write(&self.queue, &slot, &bytes.0);
        let observes = self.observes();
        let observed = if observes { self.schedule.observed() } else { Vec::new() };
        let mut pass = self.begin(encoder);
        for dispatch in if observes { &observed } else { &self.schedule.dispatches } {
            let first_row = self.plan.classes[dispatch.class].first_row as u64;
            let row = slot.offset + if self.own_rows.is_some() { 0 } else { STRIDE * first_row };
            self.dispatch(&mut pass, dispatch, row, self.own_group(dispatch));
        }
        drop(pass);
        if observes {
            self.read_observations(encoder, vec![true; self.plan.tensors.len()]);
        }
        self.record_own(encoder, &self.schedule.round);
        self.sums.iter().for_each(|sum| encoder.clear_buffer(sum, 0, None));
        self.has_sum.fill(false);
        self.steps.iter_mut().for_each(|t| *t += 1);
        (self.micro_batches, self.recorded) = (0, self.recorded.saturating_add(1));
        encoder.on_submitted_work_done(move || {
            drop(slot);
            ticket.done();
        });
        Ok(())
    }

    /// # Errors
    /// As for [`Submissions::check`](crate::submissions::Submissions::check); a lost device, which drops what was submitted, comes first.
    pub(super) fn check_submissions(&self) -> Result<(), Error> {
        self.submissions.check().or_else(|error| {
            self.probe.check()?;
            Err(error)
        })
    }

    /// Dispatches over arenas that no scalars go into.
    pub(super) fn record_own(&self, encoder: &mut wgpu::CommandEncoder, dispatches: &[Dispatch]) {
        if !dispatches.is_empty() {
            let mut pass = self.pass(encoder);
            for dispatch in dispatches {
                self.dispatch(&mut pass, dispatch, 0, self.own_group(dispatch));
            }
        }
    }

    /// The tensors of a page in arenas, as a dispatch binds them.
    fn own_group(&self, dispatch: &Dispatch) -> Option<&wgpu::BindGroup> {
        let groups = &self.pages[dispatch.page?].own;
        groups.iter().find(|(operands, _)| *operands == dispatch.operands).map(|(_, group)| group)
    }

    fn row(&self, recipe: &Recipe, t: u64) -> Row {
        Row::new(recipe, t, &self.groups, self.grad_scale / f64::from(self.groups.accumulation()))
    }

    /// Records one step over the caller's buffers, in the order of the specs, and never submits: a slice of
    /// [`TensorBuffers`], or of `Option`s where `None` leaves a tensor out of this step, with its state and its step
    /// count as they are. Tensors whose parameters lie in
    /// one buffer, and whose gradients do, share their dispatches.
    ///
    /// Parameters are changed in place. Every range is bound as read-write storage, so several slices may lie in one
    /// buffer, but they must not overlap.
    ///
    /// # Errors
    /// [`Error::Ownership`] for an optimizer with arenas, [`Error::Plan`] if the number of tensors differs,
    /// [`Error::Slice`] for a slice of another size than its tensor, misaligned, overlapping another, reaching beyond
    /// its buffer, or of a buffer without `STORAGE`, and for state that is missing or not asked for;
    /// [`Error::Recipe`] for a learning rate out of range; off the web, [`Error::Gpu`] for a buffer of another device;
    /// [`Error::RingFull`] and [`Error::MicroBatchDropped`] as for [`record`](Self::record). Nothing is
    /// recorded then.
    pub fn record_with<'a, B>(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[B],
    ) -> Result<(), Error>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let buffers: Vec<_> = buffers.iter().map(|&buffers| buffers.into()).collect();
        self.record_present(encoder, &buffers)
    }

    fn record_present(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[Option<TensorBuffers<'_>>],
    ) -> Result<(), Error> {
        if self.plan.ownership == Ownership::Arenas {
            return Err(Error::Ownership("this optimizer has arenas of its own: use `record`"));
        }
        self.check_submissions()?;
        let alignment = u64::from(self.device.limits().min_storage_buffer_offset_alignment);
        slices::validate(&self.plan, buffers, alignment)?;
        let halves = self.plan.precision != Precision::F32;
        // Masters and sums take the places of parameters and gradients.
        let (masters, sums) = (self.masters.clone(), self.sums.clone());
        let own = |buffers: &'_ [wgpu::Buffer], tensor: &Tensor| {
            let buffer = buffers.get(tensor.block)?;
            let size = 4 * tensor.numel.next_multiple_of(4);
            Some((buffer.clone(), 4 * tensor.offset, size))
        };
        let owned: Vec<_> = self
            .plan
            .order
            .iter()
            .map(|&tensor| [&masters, &sums].map(|buffers| own(buffers, &self.plan.tensors[tensor])))
            .collect();
        let mut given: Pairs<'_> = Vec::with_capacity(buffers.len());
        let mut stepped: Pairs<'_> = Vec::with_capacity(buffers.len());
        for (buffers, owned) in buffers.iter().zip(&owned) {
            let pair = buffers.map(|buffers| {
                [buffers.param, buffers.grad].map(|slice| Stored { slice, precision: self.plan.precision })
            });
            given.push(pair);
            stepped.push(pair.map(|[param, grad]| {
                let [master, sum] = owned.each_ref().map(|owned| {
                    let (buffer, offset, size) = owned.as_ref()?;
                    let slice = TensorSlice { buffer, offset: *offset, size: *size };
                    Some(Stored { slice, precision: Precision::F32 })
                });
                [master.unwrap_or(param), sum.unwrap_or(grad)]
            }));
        }
        let pairs = |which: usize| -> Pairs<'_> {
            stepped.iter().zip(&given).map(|(own, given)| Some([(*own)?[which], (*given)?[which]])).collect()
        };
        let [of_params, of_grads] = [0, 1].map(pairs);

        let steps = self.micro_batches + 1 >= self.groups.accumulation();
        let rows = match steps && buffers.iter().any(Option::is_some) {
            true => Some(self.rows_of(buffers)?),
            false => None,
        };
        // What wgpu may refuse comes before anything is recorded.
        let [sums, widen, step, round] = scope::watch(&self.device, || {
            let converts = halves && rows.is_some();
            [
                self.plan.accumulates.then(|| self.prepare_pairs(Transfer::Sums, &of_grads)),
                // Does nothing where a master holds its values, which only the GPU knows.
                converts.then(|| self.prepare_pairs(Transfer::Widen, &of_params)),
                rows.map(|rows| self.prepare_step(buffers, &stepped, rows)),
                converts.then(|| self.prepare_pairs(Transfer::Round, &of_params)),
            ]
        })?;
        // And so does what may not have a place.
        let needed = [&sums, &widen, &step, &round].map(|part| part.as_ref().map_or(0, Prepared::bytes));
        self.fit_ring(needed.into_iter().max().unwrap_or(0))?;
        let place = |part: Option<Prepared>| {
            part.map(|part| Ok::<_, Error>((part, self.ring.take(&self.device)?))).transpose()
        };
        let [sums, widen, step, round] = [place(sums)?, place(widen)?, place(step)?, place(round)?];

        let ticket = self.submissions.ticket(self.plan.accumulates);
        if let Some(sums) = sums {
            self.record_pairs(encoder, sums);
            self.micro_batches = if steps { 0 } else { self.micro_batches + 1 };
            for (_, &tensor) in buffers.iter().zip(&self.plan.order).filter(|(given, _)| given.is_some()) {
                self.has_sum[tensor] = true;
            }
        }
        let Some(step) = step else {
            encoder.on_submitted_work_done(move || ticket.done());
            return Ok(());
        };
        if let Some(widen) = widen {
            self.record_pairs(encoder, widen);
        }
        self.record_step(encoder, buffers, step);
        if let Some(round) = round {
            self.record_pairs(encoder, round);
        }
        let mut present: Vec<usize> = buffers
            .iter()
            .zip(&self.plan.order)
            .filter(|(given, _)| given.is_some())
            .map(|(_, &t)| t)
            .collect();
        present.sort_unstable();
        self.clear_sums_of(encoder, &present);
        present.into_iter().for_each(|tensor| self.has_sum[tensor] = false);
        encoder.on_submitted_work_done(move || ticket.done());
        Ok(())
    }

    /// Records the clearing of the sums of tensors, in the order of the plan: neighbours in one go.
    fn clear_sums_of(&self, encoder: &mut wgpu::CommandEncoder, tensors: &[usize]) {
        if self.sums.is_empty() {
            return;
        }
        for run in
            tensors.chunk_by(|&a, &b| b == a + 1 && self.plan.tensors[a].block == self.plan.tensors[b].block)
        {
            let [first, last] = [run[0], run[run.len() - 1]].map(|tensor| self.grad_sum(tensor));
            let end = last.offset + last.size;
            encoder.clear_buffer(first.buffer, first.offset, Some(end - first.offset));
        }
    }

    /// What copies between what the optimizer holds of tensors and what the caller does.
    fn prepare_pairs(&self, transfer: Transfer, pairs: &Pairs<'_>) -> Prepared {
        let dispatches = match transfer {
            Transfer::Sums => &self.schedule.accumulate,
            Transfer::Widen => &self.schedule.widen,
            Transfer::Round => &self.schedule.round,
        };
        let mut places = Places::default();
        let placements = self.placements(pairs, &vec![0; pairs.len()], &mut places);
        let limits = plan_limits(&self.device.limits());
        let layout = batches::lay_out(&self.plan, &placements, limits.binding);
        let mut bytes = SlotBytes::default();
        let dispatches = self.expand(dispatches, &layout, &mut bytes);
        let bind = |(index, batch): (usize, &Batch)| {
            let given = |place: Place| range(places.0[place.buffer], place.offset, place.size);
            let group = self.bind_group(&self.kernels.pairs, vec![given(batch.param), given(batch.grad)]);
            // Dispatches of pairs have one kind of operands each.
            ((index, dispatches[0].0.operands), group)
        };
        let groups = match dispatches.is_empty() {
            true => HashMap::new(),
            false => layout.batches.iter().enumerate().map(bind).collect(),
        };
        Prepared { bytes, table: layout.table, dispatches, groups }
    }

    fn record_pairs(&mut self, encoder: &mut wgpu::CommandEncoder, (prepared, slot): (Prepared, Slot)) {
        let Prepared { bytes, table, dispatches, groups } = prepared;
        if groups.is_empty() {
            return;
        }
        let table_offset = self.ring.write_with_table(&self.queue, &slot, &bytes.0, table);
        let mut pass = self.pass(encoder);
        for (dispatch, placed) in &dispatches {
            let Some(Placed { grid, batch: Some(batch), .. }) = placed else { continue };
            let offsets = [slot.offset + grid, slot.offset, table_offset];
            self.dispatch_in(&mut pass, dispatch, 1, offsets, groups.get(&(*batch, dispatch.operands)));
        }
        drop(pass);
        encoder.on_submitted_work_done(move || drop(slot));
    }

    fn prepare_step(
        &self,
        buffers: &[Option<TensorBuffers<'_>>],
        stepped: &Pairs<'_>,
        (row_of, rows): (Vec<u32>, Vec<Row>),
    ) -> Prepared {
        let mut places = Places::default();
        let placements = self.placements(stepped, &row_of, &mut places);
        let limits = plan_limits(&self.device.limits());
        let layout = batches::lay_out(&self.plan, &placements, limits.binding);
        let groups = self.bind(&layout.batches, &places, buffers);
        let mut bytes = SlotBytes::default();
        for row in &rows {
            bytes.push(row);
        }
        let observed = if self.observes() { self.schedule.observed() } else { Vec::new() };
        let all = if self.observes() { &observed } else { &self.schedule.dispatches };
        let dispatches = self.expand(all, &layout, &mut bytes);
        Prepared { bytes, table: layout.table, dispatches, groups }
    }

    fn record_step(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[Option<TensorBuffers<'_>>],
        (prepared, slot): (Prepared, Slot),
    ) {
        let Prepared { bytes, table, dispatches, groups } = prepared;
        let table_offset = self.ring.write_with_table(&self.queue, &slot, &bytes.0, table);
        self.copy_accumulators(encoder, buffers, true);
        let mut pass = self.begin(encoder);
        for (dispatch, placed) in &dispatches {
            match placed {
                Some(Placed { grid, first_row, batch }) => {
                    let row = slot.offset + STRIDE * u64::from(*first_row);
                    let offsets = [slot.offset + grid, row, table_offset];
                    let tensors = batch.and_then(|batch| groups.get(&(batch, dispatch.operands)));
                    self.dispatch_in(&mut pass, dispatch, 1, offsets, tensors);
                }
                None => self.dispatch(&mut pass, dispatch, slot.offset, None),
            }
        }
        drop(pass);
        if self.observes() {
            let mut present = vec![false; self.plan.tensors.len()];
            for (given, &tensor) in buffers.iter().zip(&self.plan.order) {
                present[tensor] = given.is_some();
            }
            self.read_observations(encoder, present);
        }
        self.copy_accumulators(encoder, buffers, false);
        for (spec, given) in buffers.iter().enumerate() {
            self.steps[self.plan.order[spec]] += u64::from(given.is_some());
        }
        self.recorded = self.recorded.saturating_add(1);
        encoder.on_submitted_work_done(move || drop(slot));
    }

    /// Where the tensors lie, and their rows.
    fn placements<'a>(&self, pairs: &Pairs<'a>, row_of: &[u32], places: &mut Places<'a>) -> Vec<Placement> {
        let of = |(spec, pair): (usize, &Option<[Stored<'a>; 2]>)| {
            let tensor = self.plan.order[spec];
            let pair = (*pair)?;
            let [param, grad] = pair.map(|stored| places.of(stored));
            let vectorized = pair.iter().all(|stored| stored.is_vectorized(&self.plan.tensors[tensor]));
            Some(Placement { tensor, param, grad, vectorized, row: row_of[spec] })
        };
        pairs.iter().enumerate().filter_map(of).collect()
    }

    /// A row for each group, step count and learning rate that occurs, and which of them each tensor has.
    ///
    /// # Errors
    /// [`Error::Recipe`] if a schedule's function leaves its range.
    fn rows_of(&self, buffers: &[Option<TensorBuffers<'_>>]) -> Result<(Vec<u32>, Vec<Row>), Error> {
        let mut rows = Vec::new();
        let mut places = BTreeMap::new();
        let groups = self.groups.recipes().len();
        let scheduled =
            (0..groups).map(|g| self.groups.scheduled(g, self.recorded)).collect::<Result<Vec<_>, _>>()?;
        let row_of = |(spec, given): (usize, &Option<TensorBuffers<'_>>)| {
            let Some(given) = given else { return Ok(0) };
            let tensor = self.plan.order[spec];
            let (row, t) = (self.plan.tensors[tensor].row, self.steps[tensor] + 1);
            let place = match places.entry((row, t, given.lr.map(f64::to_bits))) {
                Entry::Occupied(known) => return Ok(*known.get()),
                Entry::Vacant(place) => place,
            };
            let spec = &self.plan.tensors[tensor].spec;
            let recipe = match given.lr {
                None => scheduled[spec.group],
                Some(lr) => {
                    let recipe = self.initial[spec.group].with_lr(lr);
                    recipe.validate()?;
                    recipe
                }
            };
            rows.push(self.row(&recipe.on(spec), t));
            Ok(*place.insert(rows.len() as u32 - 1))
        };
        let row_of = buffers.iter().enumerate().map(row_of).collect::<Result<Vec<_>, Error>>()?;
        Ok((row_of, rows))
    }

    /// The dispatches of a step over the caller's buffers: those over chunks and pieces once for each batch of their page, those
    /// over matrices once for each window of rows.
    fn expand(
        &self,
        all: &[Dispatch],
        layout: &Layout,
        bytes: &mut SlotBytes,
    ) -> Vec<(Dispatch, Option<Placed>)> {
        let limit = self.device.limits().max_compute_workgroups_per_dimension;
        let mut dispatches = Vec::new();
        let mut places = HashMap::new();
        let mut batches: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, batch) in layout.batches.iter().enumerate() {
            batches.entry(batch.page).or_default().push(index);
        }
        let mut windows: HashMap<usize, Vec<usize>> = HashMap::new();
        for (index, matrices) in layout.matrices.iter().enumerate() {
            windows.entry(matrices.page).or_default().push(index);
        }
        let of_page = |all: &HashMap<usize, Vec<usize>>, dispatch: &Dispatch| {
            dispatch.page.and_then(|page| all.get(&page)).cloned().unwrap_or_default()
        };
        for dispatch in all {
            let mut grid_over = |range: &Range<u32>| {
                let (first, count) = (range.start, range.len() as u32);
                let grid = Grid { first, count, ..self.schedule.grids[dispatch.grid] };
                (count, *places.entry(grid).or_insert_with(|| bytes.push(&grid)))
            };
            let workspaces = matches!(dispatch.operands, Operands::Workspaces(_));
            match dispatch.over {
                Over::Matrices => {
                    for matrices in of_page(&windows, dispatch).into_iter().map(|m| &layout.matrices[m]) {
                        let (count, grid) = grid_over(&matrices.range);
                        let [x, _, z] = dispatch.workgroups;
                        let placed = Placed { grid, first_row: matrices.first_row, batch: None };
                        dispatches.push((Dispatch { workgroups: [x, count, z], ..*dispatch }, Some(placed)));
                    }
                }
                Over::Chunks | Over::Pieces if !workspaces => {
                    for index in of_page(&batches, dispatch) {
                        let batch = &layout.batches[index];
                        let pieces = dispatch.over == Over::Pieces;
                        let (count, grid) = grid_over(if pieces { &batch.pieces } else { &batch.chunks });
                        let dispatch = Dispatch {
                            kernel: dispatch.kernel.vectorized(batch.vectorized),
                            workgroups: Schedule::workgroups(count, limit),
                            ..*dispatch
                        };
                        let placed = Placed { grid, first_row: batch.first_row, batch: Some(index) };
                        dispatches.push((dispatch, Some(placed)));
                    }
                }
                _ => dispatches.push((*dispatch, None)),
            }
        }
        dispatches
    }

    /// AdaGO's accumulators, where the caller holds the state: to the entries of the tensors, or back.
    fn copy_accumulators(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[Option<TensorBuffers<'_>>],
        to_entries: bool,
    ) {
        if self.plan.ownership != Ownership::Stateless {
            return;
        }
        for (spec, given) in buffers.iter().enumerate() {
            let tensor = self.plan.order[spec];
            let base = self.plan.base_of(&self.plan.tensors[tensor]);
            let (Some(given), false) = (given, base.scalar_names().is_empty()) else { continue };
            let own = self.accumulator(tensor);
            let theirs = given.state[base.state_names().len()];
            let [from, to] = if to_entries { [theirs, own] } else { [own, theirs] };
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, 4);
        }
    }

    pub(super) fn accumulator(&self, tensor: usize) -> TensorSlice<'_> {
        let offset = self.entry(tensor) + ACCUMULATOR;
        TensorSlice { buffer: &self.tensors, offset, size: 4 }
    }

    /// [`record`](Self::record) and submit. wgpu may run `on_submitted_work_done` callbacks inside this call: do not hold a lock
    /// that such a callback takes. [`record`](Self::record) alone runs none while it has room.
    ///
    /// # Errors
    /// As for [`record`](Self::record); [`Error::DeviceLost`], and off the web [`Error::Gpu`] for a buffer that was destroyed: nothing
    /// is counted then.
    pub fn step(&mut self) -> Result<wgpu::SubmissionIndex, Error> {
        self.probe.check()?;
        let (before, mut encoder) = (self.counts(), self.encoder());
        self.record(&mut encoder)?;
        self.submit(encoder, before)
    }

    /// Submits a step, or takes it back.
    fn submit(
        &mut self,
        encoder: wgpu::CommandEncoder,
        before: Counts,
    ) -> Result<wgpu::SubmissionIndex, Error> {
        let queue = self.queue.clone();
        let submitted = scope::watch(&self.device, move || queue.submit([encoder.finish()]));
        if submitted.is_err() {
            self.rewind(before);
        }
        submitted
    }

    /// [`record_with`](Self::record_with) and submit, as for [`step`](Self::step).
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with); [`Error::DeviceLost`], and off the web [`Error::Gpu`] for a buffer that was destroyed:
    /// nothing is counted then.
    pub fn step_with<'a, B>(&mut self, buffers: &[B]) -> Result<wgpu::SubmissionIndex, Error>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        self.probe.check()?;
        let (before, mut encoder) = (self.counts(), self.encoder());
        self.record_with(&mut encoder, buffers)?;
        self.submit(encoder, before)
    }

    fn begin<'a>(&self, encoder: &'a mut wgpu::CommandEncoder) -> wgpu::ComputePass<'a> {
        if self.schedule.dispatches.iter().any(|dispatch| dispatch.kernel.is_indirect()) {
            encoder.clear_buffer(&self.launches.0, 0, None);
        }
        self.pass(encoder)
    }

    pub(super) fn pass<'a>(&self, encoder: &'a mut wgpu::CommandEncoder) -> wgpu::ComputePass<'a> {
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("wgpu-optim.step"),
            timestamp_writes: None,
        })
    }

    pub(super) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wgpu-optim.step");
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }

    /// A dispatch over what the plan says.
    fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        dispatch: &Dispatch,
        row_offset: u64,
        tensors: Option<&wgpu::BindGroup>,
    ) {
        let grid_offset = STRIDE * dispatch.grid as u64;
        self.dispatch_in(pass, dispatch, 0, [grid_offset, row_offset, 0], tensors);
    }

    /// A dispatch with the tables of the plan (0) or of a step (1): grid, rows and chunks at these offsets.
    pub(super) fn dispatch_in(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        dispatch: &Dispatch,
        tables: usize,
        offsets: [u64; 3],
        tensors: Option<&wgpu::BindGroup>,
    ) {
        pass.set_pipeline(self.kernels.pipeline(dispatch.kernel));
        pass.set_bind_group(0, &self.tables[tables], &offsets.map(|offset| offset as u32));
        let bits = dispatch.page.and_then(|page| self.pages[page].scratch.as_ref());
        let tensors = match &dispatch.operands {
            Operands::Workspaces(order) => self.orders.get(order),
            _ => tensors,
        };
        let scratch = match dispatch.kernel {
            Kernel::Sample { .. } | Kernel::RankSample => Some(&self.samples),
            Kernel::Prove => Some(&self.launches.1),
            Kernel::Observe { .. } | Kernel::Moved { .. } => {
                dispatch.page.and_then(|page| self.pages[page].snapshot.as_ref())
            }
            _ => bits,
        };
        let counters = match dispatch.kernel {
            Kernel::Observe { .. } | Kernel::Moved { .. } | Kernel::Report => {
                self.observations.as_ref().map(|(_, group)| group)
            }
            _ => Some(&self.counters),
        };
        let groups = [tensors, scratch, counters];
        let used = dispatch.kernel.groups();
        let last = used.iter().rposition(|&used| used).unwrap_or(0);
        for i in 1..=last {
            let group = if used[i] { groups[i - 1] } else { Some(&self.empty) };
            pass.set_bind_group(i as u32, group, &[]);
        }
        if dispatch.kernel.is_indirect() {
            pass.dispatch_workgroups_indirect(&self.launches.0, 12 * dispatch.class as u64);
        } else {
            let [x, y, z] = dispatch.workgroups;
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// The bind groups of the batches, for each kind of operands.
    fn bind(
        &self,
        batches: &[Batch],
        places: &Places<'_>,
        buffers: &[Option<TensorBuffers<'_>>],
    ) -> HashMap<(usize, Operands), wgpu::BindGroup> {
        let mut groups = HashMap::new();
        for (index, batch) in batches.iter().enumerate() {
            for &operands in &self.operands[self.plan.pages[batch.page].class] {
                groups.insert((index, operands), self.bind_batch(batch, operands, places, buffers));
            }
        }
        groups
    }

    /// The caller's buffers of a batch, and the state or the workspace of its page.
    fn bind_batch(
        &self,
        batch: &Batch,
        operands: Operands,
        places: &Places<'_>,
        buffers: &[Option<TensorBuffers<'_>>],
    ) -> wgpu::BindGroup {
        let page = &self.plan.pages[batch.page];
        let given = |place: Place| range(places.0[place.buffer], place.offset, place.size);
        let workspace = |index: usize| range(&self.workspaces[index], 0, 4 * page.len);
        let mut ranges = operand_ranges(operands, given(batch.param), given(batch.grad), workspace);
        if matches!(operands, Operands::Orthogonal(_)) {
            // The workspace takes the place of the state.
        } else if self.plan.ownership == Ownership::Stateless {
            // Without state of its own a page has one tensor.
            let tensor = &self.plan.tensors[page.tensors.start];
            let spec = self.plan.spec_of(page.tensors.start);
            let first = 4 * (page.offset - tensor.offset);
            let size = 4 * page.numel.next_multiple_of(4);
            let slices = buffers[spec].as_ref().map_or(&[][..], |given| given.state);
            let names = self.plan.classes[page.class].base.state_names();
            let slices = slices.iter().take(names.len());
            ranges.extend(slices.map(|s| range(s.buffer, s.offset + first, size)));
        } else {
            let base = self.plan.classes[page.class].base;
            ranges.extend(state_ranges(base, &self.states[page.block], page));
        }
        self.bind_group(&self.kernels.tensors[&self.plan.classes[page.class].base], ranges)
    }

    pub(super) fn bind_group(
        &self,
        layout: &wgpu::BindGroupLayout,
        ranges: Vec<wgpu::BindingResource<'_>>,
    ) -> wgpu::BindGroup {
        let entries: Vec<_> = ranges
            .into_iter()
            .enumerate()
            .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource })
            .collect();
        let label = Some("wgpu-optim.tensors");
        self.device.create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries })
    }
}

/// Of each spec, what a dispatch binds first and second, if the tensor is there.
type Pairs<'a> = Vec<Option<[Stored<'a>; 2]>>;

/// What is copied between the optimizer and the caller.
enum Transfer {
    /// Gradients, to their sums.
    Sums,
    /// Parameters, to their masters.
    Widen,
    /// Masters, to their parameters.
    Round,
}

/// A pass over the caller's buffers, before it is recorded.
struct Prepared {
    /// What goes into a slot, before the table.
    bytes: SlotBytes,
    table: Vec<Chunk>,
    dispatches: Vec<(Dispatch, Option<Placed>)>,
    /// The bind groups of the batches, for each kind of operands.
    groups: HashMap<(usize, Operands), wgpu::BindGroup>,
}

impl Prepared {
    /// Bytes that it takes in a slot.
    fn bytes(&self) -> u64 {
        self.bytes.0.len() as u64 + Chunk::min_size().get() * self.table.len() as u64
    }
}

/// Where a dispatch over the caller's buffers finds its work.
struct Placed {
    /// Its grid's place in the slot.
    grid: u64,
    first_row: u32,
    batch: Option<usize>,
}
/// What a slot of the ring holds: uniforms, each at a multiple of the alignment of dynamic offsets, then a table.
#[derive(Default)]
pub(super) struct SlotBytes(pub Vec<u8>);

impl SlotBytes {
    /// Adds a uniform, and returns its place in the slot.
    pub(super) fn push<T: ShaderType + encase::internal::WriteInto>(&mut self, uniform: &T) -> u64 {
        let mut bytes = encase::UniformBuffer::new(Vec::<u8>::new());
        bytes.write(uniform).expect("a vector grows");
        let place = self.0.len();
        self.0.extend(bytes.into_inner());
        self.0.resize(place + STRIDE as usize, 0);
        place as u64
    }
}

/// The caller's buffers by number.
#[derive(Default)]
struct Places<'a>(Vec<&'a wgpu::Buffer>, HashMap<&'a wgpu::Buffer, usize>);

impl<'a> Places<'a> {
    fn of(&mut self, Stored { slice, precision }: Stored<'a>) -> Place {
        let buffer = *self.1.entry(slice.buffer).or_insert_with(|| {
            self.0.push(slice.buffer);
            self.0.len() - 1
        });
        Place { buffer, offset: slice.offset, size: slice.size, unit: precision.bytes() }
    }
}
