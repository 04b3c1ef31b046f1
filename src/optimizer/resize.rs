//! Tensors that grow, shrink or change their order, with their state, on the GPU.

use std::collections::{HashMap, HashSet};

use super::record::SlotBytes;
use super::{GpuOptimizer, range};
use crate::error::Error;
use crate::kernel::{ACCUMULATOR, BROKEN_WORD, Grid, Kernel, MASTERED, SKIP_WORD, SKIPPED};
use crate::passes::{Dispatch, Operands, Over, Schedule};
use crate::plan::{Ownership, TensorSpec, WORKGROUP};
use crate::slices::TensorSlice;

/// Tensors that are carried in one submit: what wgpu does for a copy grows with those before it.
const COPIES: u32 = 64;

/// Which rows of a tensor a resized one has. A row is what the first dimension counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rows<'a> {
    /// Those at the same place, as many as both have. Others are zero.
    Keep,
    /// Row r is that of `index[r]`, a u32: in a buffer with `STORAGE`, one for each row that there will be. [`Rows::NONE`] leaves a row
    /// zero, [`Rows::PARAMETERS_ONLY`] added to an index takes the parameters and leaves the state zero, as for
    /// points that are split. An index beyond the rows that there were leaves a row zero.
    Gather(TensorSlice<'a>),
    /// None: all are zero, and so is its count of steps.
    Reset,
}

impl Rows<'_> {
    /// In place of an index: no row.
    pub const NONE: u32 = u32::MAX;
    /// Added to an index: its parameters, and no state.
    pub const PARAMETERS_ONLY: u32 = 1 << 31;
}

impl GpuOptimizer {
    /// Another optimizer with the same groups for these specs, into which everything is carried on the GPU: state and, in arenas,
    /// parameters; sums of micro-batches, counts of steps, learning rates, factors of components, the scaler. Tensors are known by their names; what
    /// `rows` does not mention keeps its rows. Submits copies at once: submit before what
    /// was recorded.
    ///
    /// In the caller's buffers the parameters are the caller's to move. Where these are stored in two bytes, the masters of a tensor
    /// that changes are taken from them again.
    ///
    /// ```no_run
    /// # async fn grow(optimizer: wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{Rows, TensorSlice, TensorSpec};
    ///
    /// let specs = [TensorSpec::new("splats", [12_000, 14])];
    /// let optimizer = optimizer.resized(&specs, &[("splats", Rows::Keep)]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As for [`new`](Self::new). [`Error::Tensor`] if a row has another size than before, or another recipe's state;
    /// [`Error::Slice`] for an index that does not fit, [`Error::UnknownTensor`] for rows of a tensor that is not in both,
    /// [`Error::Unsupported`] for gathering in a tensor larger than a binding; [`Error::Plan`] where tensors in arenas have taken
    /// different numbers of steps in more than 64 ways; [`Error::MicroBatchDropped`] as for [`record`](Self::record); on the web, [`Error::RingFull`] for gathering many tensors at once.
    pub async fn resized(&self, specs: &[TensorSpec], rows: &[(&str, Rows<'_>)]) -> Result<Self, Error> {
        if self.plan.ownership == Ownership::Stateless {
            return Err(Error::Ownership("the caller holds the state of this optimizer"));
        }
        self.check_submissions()?;
        let named: HashSet<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut chosen: HashMap<&str, Rows<'_>> = HashMap::new();
        for (name, rows) in rows {
            self.plan.tensor(name)?;
            if !named.contains(name) {
                return Err(Error::UnknownTensor((*name).to_owned()));
            }
            chosen.entry(name).or_insert(*rows);
        }
        let mut groups = self.groups.clone();
        groups.recipes_mut().copy_from_slice(&self.initial);
        let mut new = self.sibling(specs, groups).await?;
        for (group, recipe) in self.groups.recipes().iter().enumerate() {
            new.set_group_lr(group, recipe.lr())?;
        }
        if rows.iter().any(|(_, rows)| matches!(rows, Rows::Gather(_))) {
            new.kernels.add(&self.device, Kernel::Gather);
        }
        (new.recorded, new.micro_batches) = (self.recorded, self.micro_batches);
        new.grad_scale = self.grad_scale;
        let mut encoder = self.encoder();
        // Of the header all but what was decided about the last step: `skip`, and the tensor it names.
        for (word, words) in [(0, SKIP_WORD), (SKIP_WORD + 1, BROKEN_WORD - SKIP_WORD - 1)] {
            encoder.copy_buffer_to_buffer(&self.tensors, 4 * word, &new.tensors, 4 * word, 4 * words);
        }
        (new.reported, new.mailbox) = (self.reported.clone(), self.mailbox.clone());
        let mut carried = 0u32;
        for spec in specs.iter().filter(|spec| self.plan.tensor(&spec.name).is_ok()) {
            let chosen = chosen.get(spec.name.as_str()).copied().unwrap_or(Rows::Keep);
            if chosen != Rows::Reset {
                self.carry(&mut new, &mut encoder, spec, chosen)?;
            }
            carried += 1;
            if carried.is_multiple_of(COPIES) || matches!(chosen, Rows::Gather(_)) {
                // A slot of the ring comes back when it was submitted.
                let recorded = std::mem::replace(&mut encoder, self.encoder());
                self.queue.submit([recorded.finish()]);
            }
        }
        if self.plan.ownership == Ownership::Arenas {
            new.record_own(&mut encoder, &new.schedule.round);
        }
        self.queue.submit([encoder.finish()]);
        new.arrange_rows()?;
        Ok(new)
    }

    /// [`resized`](Self::resized), blocking. Not on the web.
    ///
    /// # Errors
    /// As for [`resized`](Self::resized).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn resized_blocking(&self, specs: &[TensorSpec], rows: &[(&str, Rows<'_>)]) -> Result<Self, Error> {
        pollster::block_on(self.resized(specs, rows))
    }

    /// Carries a tensor into `new`.
    fn carry(
        &self,
        new: &mut Self,
        encoder: &mut wgpu::CommandEncoder,
        spec: &TensorSpec,
        rows: Rows<'_>,
    ) -> Result<(), Error> {
        let name = &spec.name;
        let (before, after) = (self.plan.tensor_index(name)?, new.plan.tensor_index(name)?);
        let old = &self.plan.tensors[before].spec;
        let refuse = |reason| Err(Error::Tensor { tensor: name.clone(), reason });
        if old.shape.get(1..) != spec.shape.get(1..) {
            return refuse(format!("rows of shape {:?} cannot become those of {:?}", old.shape, spec.shape));
        }
        let base = new.plan.base_of(&new.plan.tensors[after]);
        if self.plan.base_of(&self.plan.tensors[before]) != base {
            return refuse("another group steps it, whose state is another".to_owned());
        }
        let mut parts = Vec::new();
        let parameters = match (self.master(before), new.master(after)) {
            (Some(from), Some(to)) => Some((from, to)),
            _ if self.plan.ownership == Ownership::Arenas => Some((self.param(name)?, new.param(name)?)),
            _ => None,
        };
        parts.extend(parameters.map(|(from, to)| (from, to, false)));
        for state in base.state_names() {
            parts.push((self.state(name, state)?, new.state(name, state)?, true));
        }
        if self.plan.accumulates {
            parts.push((self.grad_sum(before), new.grad_sum(after), true));
        }
        let mut slot_bytes = SlotBytes::default();
        match rows {
            Rows::Gather(index) => {
                let row_count = spec.shape.first().map_or(1, |&rows| rows as u64);
                let alignment = u64::from(self.device.limits().min_storage_buffer_offset_alignment);
                check_index(name, index, row_count, alignment)?;
                let grid_of = |from: &TensorSlice<'_>, to: &TensorSlice<'_>, is_state: bool| {
                    let words = to.size / 4 / row_count;
                    Grid {
                        m: row_count as u32,
                        n: words as u32,
                        depth: (from.size / 4 / words) as u32,
                        correct: u32::from(is_state),
                        ..Grid::default()
                    }
                };
                let place = |(from, to, is_state): &_| slot_bytes.push(&grid_of(from, to, *is_state));
                let places: Vec<_> = parts.iter().map(place).collect();
                let slot = new.ring.take(&new.device)?;
                new.ring.write(&new.queue, &slot, &slot_bytes.0);
                let limit = new.device.limits();
                for ((from, to, _), place) in parts.iter().zip(places) {
                    crate::plan::within(
                        "max_storage_buffer_binding_size",
                        from.size.max(to.size),
                        limit.max_storage_buffer_binding_size,
                    )?;
                    let ranges = [from, to, &index].map(|s| range(s.buffer, s.offset, s.size)).into();
                    let group = new.bind_group(&new.kernels.workspaces, ranges);
                    let workgroups = (to.size / 4).div_ceil(WORKGROUP) as u32;
                    let dispatch = Dispatch {
                        kernel: Kernel::Gather,
                        page: None,
                        class: 0,
                        grid: 0,
                        over: Over::Once,
                        operands: Operands::Tensors,
                        workgroups: Schedule::workgroups(
                            workgroups,
                            limit.max_compute_workgroups_per_dimension,
                        ),
                        bytes: 0,
                    };
                    let grid = slot.offset + place;
                    let mut pass = new.pass(encoder);
                    new.dispatch_in(&mut pass, &dispatch, 1, [grid, slot.offset, slot.offset], Some(&group));
                }
                encoder.on_submitted_work_done(move || drop(slot));
            }
            Rows::Keep | Rows::Reset => {
                for (from, to, _) in &parts {
                    let size = from.size.min(to.size);
                    encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, size);
                }
            }
        }
        let (old_entry, new_entry) = (self.entry(before), new.entry(after));
        // Another shape takes its master from its parameter again.
        let same = rows == Rows::Keep && old.shape == spec.shape;
        for word in [ACCUMULATOR, SKIPPED].into_iter().chain(same.then_some(MASTERED)) {
            encoder.copy_buffer_to_buffer(&self.tensors, old_entry + word, &new.tensors, new_entry + word, 4);
        }
        if old.components == spec.components && spec.components > 0 {
            let (from, to) = (self.rates(name)?, new.rates(name)?);
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, to.size);
        }
        new.steps[after] = self.steps[before];
        new.has_sum[after] = self.has_sum[before];
        Ok(())
    }
}

fn check_index(name: &str, index: TensorSlice<'_>, rows: u64, alignment: u64) -> Result<(), Error> {
    let refuse = |reason| Err(Error::Slice { tensor: name.to_owned(), what: "row index", reason });
    if index.size != 4 * rows {
        return refuse(format!("{} bytes given, {} needed for {rows} rows", index.size, 4 * rows));
    }
    if !index.offset.is_multiple_of(alignment) {
        return refuse(format!("offset {} is no multiple of {alignment}", index.offset));
    }
    if index.offset.checked_add(index.size).is_none_or(|end| end > index.buffer.size()) {
        return refuse(format!("it reaches beyond the buffer's {} bytes", index.buffer.size()));
    }
    if !index.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return refuse(format!("its buffer lacks STORAGE, it has {:?}", index.buffer.usage()));
    }
    Ok(())
}
