//! Tensors that grow, shrink or change their order, with their state, on the GPU.

use std::collections::{HashMap, HashSet};
use std::mem::offset_of;

use super::held::{AVERAGE, Held, MASTER, MASTER_LOW, PARAM, RATES, Stored};
use super::optimizer::GpuOptimizer;
use super::slices::TensorSlice;
use crate::error::{Error, Result, ensure};
use crate::kernel::catalog::Config;
use crate::kernel::tables::{Header, ResizedRows, STRIDE, Tensor};
use crate::plan::layout::{Ownership, Plan, WORKGROUP, within};
use crate::plan::program::When;
use crate::plan::scalars::UniformBytes;
use crate::plan::stage::workgroups;
use crate::recipe::precision::Precision;
use crate::recipe::spec::TensorSpec;

/// Tensors that are carried in one submit: what wgpu does for a copy grows with those before it.
const COPIES: u32 = 64;

/// Where the rows of a resized tensor come from. A row is one index of the first dimension.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Rows<'a> {
    /// Each row keeps its place. Rows that are new are zero.
    Keep,
    /// Row r comes from the old row `index[r]`. The slice holds one u32 per new row, in a buffer with `STORAGE`.
    ///
    /// Add [`Rows::PARAMETERS_ONLY`] to an index to take the parameters and leave the state zero, for example for points that are split.
    /// [`Rows::NONE`], and any index beyond the old rows, leaves the row zero.
    Gather(TensorSlice<'a>),
    /// All rows are zero, and the tensor's step count is 0. The tensor may have any shape.
    Reset,
}

impl Rows<'_> {
    /// The index of no row: the new row is zero.
    pub const NONE: u32 = u32::MAX;
    /// Added to an index: takes the parameters of the row, and leaves its state zero.
    ///
    /// ```no_run
    /// # async fn example(optimizer: wgpu_optim::GpuOptimizer, queue: &wgpu_optim::wgpu::Queue, index: wgpu_optim::wgpu::Buffer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{Rows, TensorSlice, TensorSpec};
    /// // Of three points: the first stays, the last is split in two that begin again, one is new.
    /// let rows = [0, 2 | Rows::PARAMETERS_ONLY, 2 | Rows::PARAMETERS_ONLY, Rows::NONE];
    /// queue.write_buffer(&index, 0, &rows.map(u32::to_le_bytes).concat());
    /// let (points, rows) = ([TensorSpec::new("points", [4, 14])], Rows::Gather(TensorSlice::whole(&index)));
    /// let optimizer = optimizer.resized(&points, &[("points", rows)]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub const PARAMETERS_ONLY: u32 = 1 << 31;
}

impl GpuOptimizer {
    /// Builds an optimizer with the same groups for these specs, and copies everything into it on the GPU: parameters if the optimizer holds
    /// them, state, sums of micro-batches, step counts, learning rates, factors of components, and the scaler. Tensors are matched by name.
    /// Tensors that `rows` does not mention keep their rows. It submits the copies at once, so submit recorded steps first.
    ///
    /// If your buffers hold the parameters, move them yourself. If they are stored in two bytes, a tensor that changes re-reads its masters
    /// from them.
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
    /// As for [`new`](Self::new), and:
    ///
    /// - [`Error::Tensor`] if a tensor changes another dimension than the first, moves to a group with another base, or changes its layout
    ///   under NAMO-D or NorMuon; or if it changes, has no masters, and its rows have an odd number of coordinates; or if it changes, has
    ///   8-bit states, and its rows are not a multiple of 4 coordinates.
    /// - [`Error::Slice`] for an index with the wrong size or usage.
    /// - [`Error::UnknownTensor`] for rows of a tensor that is not in both optimizers.
    /// - [`Error::Unsupported`] for [`Rows::Gather`] in a tensor larger than a binding.
    /// - [`Error::Ownership`] if your buffers hold the state.
    /// - [`Error::MicroBatchDropped`] as for [`record`](Self::record).
    /// - On the web, [`Error::RingFull`] for gathering many tensors at once.
    pub async fn resized(&self, specs: &[TensorSpec], rows: &[(&str, Rows<'_>)]) -> Result<Self> {
        self.has_state()?;
        self.check_submissions()?;
        let named: HashSet<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let mut chosen: HashMap<&str, Rows<'_>> = HashMap::new();
        for &(name, rows) in rows {
            self.plan.tensor(name)?;
            ensure!(named.contains(name), Error::UnknownTensor(name.to_owned()));
            chosen.entry(name).or_insert(rows);
        }
        let mut groups = self.groups.clone();
        groups.recipes.copy_from_slice(&self.initial);
        let mut new = self.sibling(specs, groups).await?;
        for (group, recipe) in self.groups.recipes().iter().enumerate() {
            new.set_group_lr(group, recipe.lr())?;
        }
        new.counts.recorded = self.counts.recorded;
        (new.counts.micro_batches, new.counts.weights) = (self.counts.micro_batches, self.counts.weights);
        new.evaluating = self.evaluating;
        (new.grad_scale, new.weight) = (self.grad_scale, self.weight);
        let mut encoder = self.encoder();
        // Of the header all but what was decided about the last step: `skip`, and the tensor it names.
        let [skip, broken] = [offset_of!(Header, skip) as u64, offset_of!(Header, broken) as u64];
        for range in [0..skip, skip + 4..broken] {
            let size = range.end - range.start;
            encoder.copy_buffer_to_buffer(self.table(), range.start, new.table(), range.start, size);
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
        self.queue.submit([encoder.finish()]);
        new.submit_own(When::Round);
        Ok(new)
    }

    /// Carries a tensor into `new`.
    fn carry(
        &self,
        new: &mut Self,
        encoder: &mut wgpu::CommandEncoder,
        spec: &TensorSpec,
        rows: Rows<'_>,
    ) -> Result<()> {
        let name = &spec.name;
        let (before, after) = (self.plan.tensor_index(name)?, new.plan.tensor_index(name)?);
        let [was, is] = [&self.plan.tensors[before], &new.plan.tensors[after]];
        let old = &was.spec.shape;
        let refusal = |reason| Error::Tensor { tensor: name.clone(), reason };
        let other_rows = || refusal(format!("shape {old:?} cannot become {:?}: rows must keep their size", spec.shape));
        ensure!(old.get(1..) == spec.shape.get(1..), other_rows());
        let other_state = || refusal("its new group has another base, and so another state; keep the base".to_owned());
        let state_of = |plan: &Plan, tensor| (plan.base_of(tensor), plan.state_of(tensor));
        ensure!(state_of(&self.plan, was) == state_of(&new.plan, is), other_state());
        let turned = was.spec.layout != spec.layout && self.plan.base_of(was).depends_on_layout();
        ensure!(!turned, refusal("its inputs or outputs have states, so its layout must stay".to_owned()));
        // Rows are copied in whole words.
        let parts = self.held(before);
        let (len, moves) = (was.row_len, rows != Rows::Keep || *old != spec.shape);
        let has_bytes = parts.iter().any(|part| matches!(part.format, Stored::Byte(_)));
        let bytes = || refusal(format!("rows have {len} coordinates; 8-bit states need a multiple of 4 to be moved"));
        ensure!(!moves || !has_bytes || len.is_multiple_of(4), bytes());
        let has_halves = parts.iter().any(|part| matches!(part.format, Stored::Low | Stored::Float(Precision::Bf16)));
        let odd = || {
            refusal(format!(
                "rows have {len} coordinates; bf16 rows without whole masters need an even number to be moved"
            ))
        };
        ensure!(!moves || !has_halves || len.is_multiple_of(2), odd());
        let mut copy = |from: TensorSlice<'_>, to: TensorSlice<'_>| {
            let size = from.size.min(to.size);
            encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, size);
        };
        // Another shape takes its master from its parameter again.
        let same = rows == Rows::Keep && *old == spec.shape;
        let counts = [offset_of!(Tensor, skipped), offset_of!(Tensor, averaged)];
        for member in counts.into_iter().chain(same.then_some(offset_of!(Tensor, mastered))) {
            copy(self.entry(before, member, 4), new.entry(after, member, 4));
        }
        let mut by_row = Vec::new();
        // Both hold the same, except that factors of components come last and may be missing.
        for (from, to) in parts.into_iter().zip(new.held(after)) {
            match (from.what, rows) {
                // As whole masters, those of the caller's parameters are read again.
                (MASTER_LOW, _) if !same && self.plan.ownership == Ownership::Caller => {}
                (RATES, _) if from.shape != to.shape => {}
                (_, Rows::Gather(_)) if from.by_row => by_row.push((from, to)),
                _ => copy(from.slice, to.slice),
            }
        }
        if let Rows::Gather(index) = rows {
            new.gather(encoder, spec, &by_row, index)?;
        }
        new.counts.steps[after] = self.counts.steps[before];
        new.counts.has_sum[after] = self.counts.has_sum[before];
        Ok(())
    }

    /// Records the gathering of rows of what an optimizer held into what this one holds.
    fn gather(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        spec: &TensorSpec,
        parts: &[(Held<'_>, Held<'_>)],
        index: TensorSlice<'_>,
    ) -> Result<()> {
        let limits = self.device.limits();
        let count = spec.shape.first().map_or(1, |&rows| rows as u64);
        let refusal = |reason| Error::slice(&spec.name, "row index", reason);
        let (given, needed) = (index.size, 4 * count);
        ensure!(given == needed, refusal(format!("{given} bytes given, {needed} needed for {count} rows")));
        let alignment = limits.min_storage_buffer_offset_alignment.into();
        index.check(alignment, wgpu::BufferUsages::STORAGE).map_err(refusal)?;
        let mut uniforms = UniformBytes::default();
        for (from, to) in parts {
            let [before, after] = [from, to].map(|held| held.slice.size);
            let limit = "max_storage_buffer_binding_size";
            within(limit, before.max(after), limits.max_storage_buffer_binding_size)?;
            let words = after / 4 / count;
            uniforms.push(&ResizedRows {
                count: count as u32,
                words: words as u32,
                count_before: (before / 4 / words) as u32,
                is_state: u32::from(![PARAM, MASTER, MASTER_LOW, AVERAGE].contains(&to.what)),
            });
        }
        let slot = self.ring.take(&self.queue, &uniforms.0)?;
        let kernel = Config::default().kernel("transfer/gather");
        let layout = [vec![0, 1, 2], vec![], vec![]];
        let pipeline = self.pipelines.pipeline(&kernel, &layout);
        let uniform = TensorSlice { size: size_of::<ResizedRows>() as u64, ..TensorSlice::whole(&self.ring.buffer) };
        let uniform = self.pipelines.bind("resize", &self.pipelines.uniform, [(0, uniform)].into_iter());
        for (at, (from, to)) in (0..).zip(parts) {
            let ranges = (0..).zip([from.slice, to.slice, index]);
            let group = self.pipelines.bind("resize", &self.pipelines.layout(&layout[0]), ranges);
            let count = (to.slice.size / 4).div_ceil(WORKGROUP) as u32;
            let [x, y, z] = workgroups(count, limits.max_compute_workgroups_per_dimension);
            let label = Some("wgpu-optim.resize");
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &uniform, &[(slot.uniforms + STRIDE * at) as u32]);
            pass.set_bind_group(1, &group, &[]);
            pass.dispatch_workgroups(x, y, z);
        }
        encoder.on_submitted_work_done(move || drop(slot));
        Ok(())
    }
}
