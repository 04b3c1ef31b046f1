//! [`GpuOptimizer`]: owns the state, records the steps.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use encase::ShaderType;

use crate::batches::{self, Batch, Layout, Place, Placement};
use crate::error::Error;
use crate::kernel::{ACCUMULATOR, Grid, Kernel, Kernels, Row, STRIDE, TENSORS_HEADER, TensorEntry, table};
use crate::matrix::{Matmul, Matrix};
use crate::passes::{DIRECTIONS, Dispatch, Operands, Over, Schedule};
use crate::plan::{Chunk, Ownership, Plan, PolicyKind, ROWS, TensorSpec};
use crate::ranges::{check, finite_non_negative, finite_positive};
use crate::readback;
use crate::recipe::{ParamGroups, Recipe};
use crate::requirements::{Requirements, plan_limits};
use crate::ring::Ring;
use crate::slices::{self, TensorBuffers, TensorSlice};

/// Optimizer steps on a GPU.
///
/// It borrows a device and a queue, keeps all state in storage buffers, and records a step into the caller's encoder.
/// Parameters and gradients lie either in its own arenas ([`GpuOptimizer::new`]) or in buffers of the caller, given anew
/// each step ([`GpuOptimizer::for_buffers`]); the state, too, may be the caller's ([`GpuOptimizer::stateless`]).
///
/// Everything is f32. A step of one adapter on the same inputs gives the same bits. A non-finite value in one
/// coordinate of a gradient, parameter or state leaves that coordinate unspecified and touches no other, except within its
/// matrix under Muon and AdaGO, and through the norm that gradients are clipped to.
pub struct GpuOptimizer {
    device: wgpu::Device,
    queue: wgpu::Queue,
    groups: ParamGroups,
    /// The recipes before any learning rate was set: a fallback's keeps its proportion to these.
    initial: Vec<Recipe>,
    plan: Plan,
    schedule: Schedule,
    kernels: Kernels,
    ring: Ring,
    /// Parameter and gradient buffers of each block, where the optimizer owns them.
    arenas: Vec<[wgpu::Buffer; 2]>,
    /// State buffers of each block.
    states: Vec<Vec<wgpu::Buffer>>,
    scratch: Vec<wgpu::Buffer>,
    /// Where matrices are orthogonalised, and, for each order that dispatches use them in, the group.
    workspaces: [wgpu::Buffer; 5],
    orders: HashMap<[usize; 3], wgpu::BindGroup>,
    /// The `Tensors` of the kernels: the gradients' norm, then an entry a tensor.
    tensors: wgpu::Buffer,
    /// The tables of the plan, and those of a step in a slot of the ring.
    tables: [wgpu::BindGroup; 2],
    counters: wgpu::BindGroup,
    samples: wgpu::BindGroup,
    /// For each class, the workgroups of the kernels that run where a bracket missed; and the buffer bound.
    launches: (wgpu::Buffer, wgpu::BindGroup),
    empty: wgpu::BindGroup,
    pages: Vec<PageGroups>,
    /// Of each class, the kinds of operands over its tensors.
    operands: Vec<Vec<Operands>>,
    /// Steps that each tensor has taken.
    steps: Vec<u64>,
}

/// The bind groups of a page.
struct PageGroups {
    /// With its part of the arenas, where there are any: for each kind of operands.
    own: Vec<(Operands, wgpu::BindGroup)>,
    scratch: Option<wgpu::BindGroup>,
}

/// What selection did to a tensor in the last step that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    /// K = ⌊τ d⌋ under `mgup`, 0 under other policies.
    pub k: u64,
    /// How many coordinates were selected (`mgup`), or had a positive score (`cautious`); 0 under other policies.
    pub count: u64,
    /// How many coordinates lay between the ends of the sample's bracket and had to be ranked: exact `mgup` on more than
    /// 4,096 coordinates, 0 otherwise.
    pub candidates: u64,
    /// Whether the bracket did not hold the K-th largest score, or more candidates than there is room for, so that full
    /// histograms had to find it: the step was right, and slower.
    pub missed: bool,
}

/// How [`GpuOptimizer::force_miss`] makes brackets miss.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// The K-th largest lies before the bracket.
    Above,
    /// It lies behind it.
    Below,
    /// There is no room for candidates.
    Overflow,
    /// There is no room for those of the bin at the boundary.
    Boundary,
}

impl GpuOptimizer {
    /// An optimizer that holds parameters and gradients in arenas of its own, both zero at first: fill them with
    /// [`write_param`](Self::write_param) and [`write_grad`](Self::write_grad), or bind the slices that
    /// [`param`](Self::param) and [`grad`](Self::grad) return in kernels of your own.
    ///
    /// # Errors
    /// Bad recipes or specs, a device that lacks a limit, or what wgpu reports while buffers and pipelines are made,
    /// out of memory included.
    pub async fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        Self::build(device, queue, specs, groups.into(), Ownership::Arenas, None).await
    }

    /// An optimizer that holds only state; the caller gives parameters and gradients each step, to
    /// [`record_with`](Self::record_with). Nothing of the caller's is kept.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn for_buffers(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        Self::build(device, queue, specs, groups.into(), Ownership::Caller, None).await
    }

    /// An optimizer that holds neither parameters nor state, only what the kernels of a step hand to each other: the
    /// caller gives all of them each step, to [`record_with`](Self::record_with), with state that begins at zero, and
    /// says with [`set_steps`](Self::set_steps) how many steps that state has seen.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn stateless(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        Self::build(device, queue, specs, groups.into(), Ownership::Stateless, None).await
    }

    /// Another optimizer on the same device, made for buffers in the same way, for other tensors or groups. It shares the
    /// pipelines that are compiled already.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn sibling(&self, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<Self, Error> {
        let (groups, kernels) = (groups.into(), Some(&self.kernels));
        Self::build(&self.device, &self.queue, specs, groups, self.plan.ownership, kernels).await
    }

    /// [`new`](Self::new), blocking. Not on the web.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new_blocking(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        pollster::block_on(Self::new(device, queue, specs, groups))
    }

    /// [`for_buffers`](Self::for_buffers), blocking. Not on the web.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn for_buffers_blocking(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        pollster::block_on(Self::for_buffers(device, queue, specs, groups))
    }

    /// [`stateless`](Self::stateless), blocking. Not on the web.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn stateless_blocking(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        pollster::block_on(Self::stateless(device, queue, specs, groups))
    }

    /// [`sibling`](Self::sibling), blocking. Not on the web.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    #[cfg(not(target_arch = "wasm32"))]
    pub fn sibling_blocking(
        &self,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self, Error> {
        pollster::block_on(self.sibling(specs, groups))
    }

    async fn build(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: ParamGroups,
        ownership: Ownership,
        compiled: Option<&Kernels>,
    ) -> Result<Self, Error> {
        let limits = device.limits();
        Requirements::new(specs, groups.clone())?.check(&limits)?;
        let plan = Plan::new(specs, &groups, ownership, plan_limits(&limits))?;
        if let Some(matmul) = groups.matmul().filter(|matmul| !matmul.is_supported(device)) {
            return Err(Error::Plan(format!(
                "matrix products by {matmul:?} need {}",
                match matmul {
                    Matmul::TilesF16 => "a device with the feature SHADER_F16",
                    _ => "a device with the feature SUBGROUP on an adapter with subgroups of 8",
                }
            )));
        }
        let scopes = [
            device.push_error_scope(wgpu::ErrorFilter::Validation),
            device.push_error_scope(wgpu::ErrorFilter::OutOfMemory),
            device.push_error_scope(wgpu::ErrorFilter::Internal),
        ];
        let optimizer = Self::allocate(device, queue, groups, plan, compiled);
        let errors: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
        for error in errors {
            if let Some(error) = error.await {
                return Err(Error::Gpu(error.to_string()));
            }
        }
        log::debug!(
            "{} tensors, {} parameters, {} dispatches a step, {} bytes of buffers",
            optimizer.plan.tensors.len(),
            optimizer.plan.numel(),
            optimizer.schedule.dispatches.len(),
            optimizer.plan.memory(),
        );
        Ok(optimizer)
    }

    fn allocate(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        groups: ParamGroups,
        plan: Plan,
        compiled: Option<&Kernels>,
    ) -> Self {
        let storage = wgpu::BufferUsages::STORAGE;
        let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        // wgpu clears new buffers: state begins at zero.
        let buffer = |what: &str, size: u64, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(&format!("wgpu-optim.{what}")),
                size: size.max(4),
                usage,
                mapped_at_creation: false,
            })
        };
        let filled = |what: &str, bytes: &[u8], usage: wgpu::BufferUsages| {
            let buffer = buffer(what, bytes.len() as u64, usage | copies);
            queue.write_buffer(&buffer, 0, bytes);
            buffer
        };

        let matmul = groups.matmul().unwrap_or_else(|| Matmul::of(device));
        let schedule = Schedule::new(&plan, device.limits().max_compute_workgroups_per_dimension, matmul);
        let kernels = Kernels::new(device, &plan, &schedule, compiled);
        let mut arenas = Vec::new();
        let mut states: Vec<Vec<wgpu::Buffer>> = Vec::new();
        for block in &plan.blocks {
            if plan.ownership == Ownership::Arenas {
                arenas
                    .push(["arena.param", "arena.grad"].map(|w| buffer(w, 4 * block.len, storage | copies)));
            }
            let names = match plan.ownership {
                Ownership::Stateless => &[],
                _ => plan.classes[block.class].base.state_names(),
            };
            let state = |name: &&str| buffer(&format!("state.{name}"), 4 * block.len, storage | copies);
            states.push(names.iter().map(state).collect());
        }
        let scratch: Vec<_> =
            plan.scratch_blocks.iter().map(|&size| buffer("scratch", size, storage | copies)).collect();
        let workspaces = plan.workspaces.map(|size| buffer("workspace", size.max(16), storage));

        let entries: Vec<_> = plan
            .tensors
            .iter()
            .zip(&plan.words)
            .map(|(tensor, words)| {
                let recipe = groups.recipe_of(&tensor.spec);
                let matrix = tensor.spec.matrix().filter(|_| recipe.base.newton_schulz().is_some());
                let own = TensorEntry {
                    k: tensor.k as u32,
                    numel: tensor.numel as u32,
                    first_chunk: tensor.chunks.start,
                    tall: u32::from(matrix.is_some_and(Matrix::is_tall)),
                    rate: matrix.map_or(1.0, |matrix| recipe.base.rate(matrix)) as f32,
                    ..TensorEntry::default()
                };
                let Some(sampling) = tensor.sampling else { return own };
                let exact = plan.classes[plan.blocks[tensor.block].class].policy == PolicyKind::Mgup;
                TensorEntry {
                    histogram: words.histogram,
                    sample: words.sample,
                    stride: sampling.stride,
                    strata: sampling.strata,
                    rank_high: if exact { sampling.high } else { sampling.middle },
                    rank_low: if exact { sampling.low } else { 0 },
                    candidates: words.candidates,
                    capacity: sampling.capacity,
                    list: words.list,
                    list_capacity: sampling.boundary,
                    ..own
                }
            })
            .collect();
        let header = vec![0; TENSORS_HEADER as usize];
        let tensors = filled("table.tensors", &[header, table(&entries)].concat(), storage);
        let chunks = filled("table.chunks", &table(&plan.chunks), storage);
        let mut grids = vec![0; schedule.grids.len() * STRIDE as usize];
        for (grid, at) in schedule.grids.iter().zip(grids.chunks_exact_mut(STRIDE as usize)) {
            let mut bytes = encase::UniformBuffer::new(Vec::new());
            bytes.write(grid).expect("a vector grows");
            at[..bytes.as_ref().len()].copy_from_slice(bytes.as_ref());
        }
        let grids = filled("table.grids", &grids, wgpu::BufferUsages::UNIFORM);
        let own_table = plan.ownership != Ownership::Arenas;
        let table_bytes = Chunk::min_size().get() * if own_table { plan.chunks.len() as u64 } else { 1 };
        let rows = match plan.ownership {
            Ownership::Arenas => groups.rows().len(),
            // Each tensor may have a row of its own, and a batch for each page that it has a part in, with four grids: over
            // its chunks, over them for the norm of AdaGO, over its pieces, and over these for the last time; and five as a
            // matrix: over X Xᵀ, its polynomial, and three orders of factors.
            _ => plan.tensors.len() + 4 * (plan.tensors.len() + plan.pages.len()) + 5 * plan.tensors.len(),
        };
        let slot_bytes = STRIDE * rows as u64 + table_bytes;
        let ring = Ring::new(device, slot_bytes, table_bytes.max(STRIDE * ROWS as u64));

        let group = |what: &str, layout: &wgpu::BindGroupLayout, resources: &[wgpu::BindingResource<'_>]| {
            let entries: Vec<_> = resources
                .iter()
                .enumerate()
                .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource: resource.clone() })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(&format!("wgpu-optim.{what}")),
                layout,
                entries: &entries,
            })
        };
        let rows = range(&ring.buffer, 0, STRIDE * ROWS as u64);
        let tables = [(&grids, &chunks, chunks.size()), (&ring.buffer, &ring.buffer, table_bytes)].map(
            |(grids, chunks, table_bytes)| {
                group(
                    "tables",
                    &kernels.tables,
                    &[
                        range(grids, 0, Grid::min_size().get()),
                        rows.clone(),
                        range(chunks, 0, table_bytes),
                        tensors.as_entire_binding(),
                    ],
                )
            },
        );
        let counters = buffer("counters", 4 * plan.counters, storage);
        let counters = group("counters", &kernels.counters, &[counters.as_entire_binding()]);
        let samples = buffer("samples", 4 * plan.samples.max(4), storage | copies);
        let samples = group("samples", &kernels.scratch, &[samples.as_entire_binding()]);
        let launches = buffer(
            "launches",
            12 * plan.classes.len() as u64,
            storage | copies | wgpu::BufferUsages::INDIRECT,
        );
        let launches_group = group("launches", &kernels.scratch, &[launches.as_entire_binding()]);
        let empty = group("empty", &kernels.empty, &[]);
        let operands: Vec<_> = (0..plan.classes.len()).map(|class| schedule.operands(class)).collect();
        let pages = plan
            .pages
            .iter()
            .map(|page| {
                let class = &plan.classes[page.class];
                let part = |buffer| range(buffer, 4 * page.offset, 4 * page.len);
                let workspace = |index: usize| range(&workspaces[index], 0, 4 * page.len);
                let own = arenas.get(page.block).map_or(Vec::new(), |[param, grad]| {
                    let own = |operands| {
                        let mut ranges = operand_ranges(operands, part(param), part(grad), workspace);
                        if !matches!(operands, Operands::Orthogonal(_)) {
                            ranges.extend(states[page.block].iter().map(part));
                        }
                        (operands, group("tensors", &kernels.tensors[&class.base], &ranges))
                    };
                    operands[page.class].iter().copied().map(own).collect()
                });
                let (block, offset, size) = page.scratch;
                let scratch = (class.policy.bits(class.base) > 0)
                    .then(|| group("scratch", &kernels.scratch, &[range(&scratch[block], offset, size)]));
                PageGroups { own, scratch }
            })
            .collect();
        let order = |order: [usize; 3]| {
            let all = order.map(|index| workspaces[index].as_entire_binding());
            (order, group("workspaces", &kernels.workspaces, &all))
        };
        let orders = schedule.orders().into_iter().map(order).collect();
        Self {
            device: device.clone(),
            queue: queue.clone(),
            steps: vec![0; plan.tensors.len()],
            initial: groups.recipes().to_vec(),
            groups,
            plan,
            schedule,
            kernels,
            ring,
            arenas,
            states,
            scratch,
            workspaces,
            orders,
            tensors,
            tables,
            counters,
            samples,
            launches: (launches, launches_group),
            empty,
            pages,
            operands,
        }
    }

    /// How everything lies in memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which dispatches make a step.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Records one step over all tensors, from the optimizer's own gradient arena, and never submits. Several steps may
    /// go into one encoder. The step counts from here on, also if the encoder is dropped.
    ///
    /// # Errors
    /// [`Error::Ownership`] for an optimizer made with [`for_buffers`](Self::for_buffers). [`Error::RingFull`] when too
    /// many recorded steps (at least 8, at most 256) wait to be submitted. Nothing is recorded then.
    pub fn record(&mut self, encoder: &mut wgpu::CommandEncoder) -> Result<(), Error> {
        if self.plan.ownership != Ownership::Arenas {
            return Err(Error::Ownership(
                "this optimizer was made for the caller's buffers: use `record_with`",
            ));
        }
        let slot = self.ring.take(&self.device)?;
        // In arenas all tensors step together.
        let t = self.steps[0] + 1;
        let mut bytes = SlotBytes::default();
        for recipe in &self.groups.rows() {
            bytes.push(&Row::new(recipe, t, self.groups.max_grad_norm()));
        }
        self.ring.write(&self.queue, &slot, &bytes.0);

        let mut pass = self.begin(encoder);
        for dispatch in &self.schedule.dispatches {
            let own = dispatch.page.and_then(|page| {
                let groups = &self.pages[page].own;
                groups.iter().find(|(operands, _)| *operands == dispatch.operands).map(|(_, group)| group)
            });
            let row = slot.offset + STRIDE * self.plan.classes[dispatch.class].first_row as u64;
            self.dispatch(&mut pass, dispatch, row, own);
        }
        drop(pass);
        self.steps.iter_mut().for_each(|t| *t += 1);
        encoder.on_submitted_work_done(move || drop(slot));
        Ok(())
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
    /// [`Error::Recipe`] for a learning rate out of range; [`Error::RingFull`] as for [`record`](Self::record). Nothing is
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
        let alignment = u64::from(self.device.limits().min_storage_buffer_offset_alignment);
        slices::validate(&self.plan, buffers, alignment)?;
        let (row_of, rows) = self.rows_of(buffers);
        if rows.is_empty() {
            return Ok(());
        }
        let slot = self.ring.take(&self.device)?;
        let mut places = Places::default();
        let placements: Vec<_> = buffers
            .iter()
            .enumerate()
            .filter_map(|(spec, given)| {
                let tensor = self.plan.order[spec];
                let TensorBuffers { param, grad, .. } = (*given)?;
                Some(Placement {
                    tensor,
                    param: places.of(param),
                    grad: places.of(grad),
                    vectorized: slices::vectorized(&self.plan.tensors[tensor], param, grad),
                    row: row_of[spec],
                })
            })
            .collect();
        let limits = plan_limits(&self.device.limits());
        let layout = batches::lay_out(&self.plan, &placements, limits.binding);
        let groups = self.bind(&layout.batches, &places, buffers);

        let mut bytes = SlotBytes::default();
        for row in &rows {
            bytes.push(row);
        }
        let dispatches = self.expand(&layout, &mut bytes);
        let table_offset = self.ring.write_with_table(&self.queue, &slot, &bytes.0, layout.table);

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
        self.copy_accumulators(encoder, buffers, false);
        for (spec, given) in buffers.iter().enumerate() {
            self.steps[self.plan.order[spec]] += u64::from(given.is_some());
        }
        encoder.on_submitted_work_done(move || drop(slot));
        Ok(())
    }

    /// A row for each group, step count and learning rate that occurs, and which of them each tensor has.
    fn rows_of(&self, buffers: &[Option<TensorBuffers<'_>>]) -> (Vec<u32>, Vec<Row>) {
        let mut rows = Vec::new();
        let mut places = BTreeMap::new();
        let row_of = |(spec, given): (usize, &Option<TensorBuffers<'_>>)| {
            let Some(given) = given else { return 0 };
            let tensor = self.plan.order[spec];
            let (row, t) = (self.plan.tensors[tensor].row, self.steps[tensor] + 1);
            *places.entry((row, t, given.lr.map(f64::to_bits))).or_insert_with(|| {
                let spec = &self.plan.tensors[tensor].spec;
                let set = self.groups.recipes()[spec.group];
                let recipe = given.lr.map_or(set, |lr| self.initial[spec.group].with_lr(lr)).on(spec);
                rows.push(Row::new(&recipe, t, self.groups.max_grad_norm()));
                rows.len() as u32 - 1
            })
        };
        let row_of = buffers.iter().enumerate().map(row_of).collect();
        (row_of, rows)
    }

    /// The dispatches of a step over the caller's buffers: those over chunks and pieces once for each batch of their page, those
    /// over matrices once for each window of rows.
    fn expand(&self, layout: &Layout, bytes: &mut SlotBytes) -> Vec<(Dispatch, Option<Placed>)> {
        let limit = self.device.limits().max_compute_workgroups_per_dimension;
        let mut dispatches = Vec::new();
        let mut places = HashMap::new();
        for dispatch in &self.schedule.dispatches {
            let mut grid_over = |range: &Range<u32>| {
                let (first, count) = (range.start, range.len() as u32);
                let grid = Grid { first, count, ..self.schedule.grids[dispatch.grid] };
                (count, *places.entry(grid).or_insert_with(|| bytes.push(&grid)))
            };
            let workspaces = matches!(dispatch.operands, Operands::Workspaces(_));
            match dispatch.over {
                Over::Matrices => {
                    for matrices in layout.matrices.iter().filter(|m| Some(m.page) == dispatch.page) {
                        let (count, grid) = grid_over(&matrices.range);
                        let [x, _, z] = dispatch.workgroups;
                        let placed = Placed { grid, first_row: matrices.first_row, batch: None };
                        dispatches.push((Dispatch { workgroups: [x, count, z], ..*dispatch }, Some(placed)));
                    }
                }
                Over::Chunks | Over::Pieces if !workspaces => {
                    let batches = layout.batches.iter().enumerate();
                    for (index, batch) in batches.filter(|(_, b)| Some(b.page) == dispatch.page) {
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

    fn accumulator(&self, tensor: usize) -> TensorSlice<'_> {
        let offset = TENSORS_HEADER + TensorEntry::min_size().get() * tensor as u64 + ACCUMULATOR;
        TensorSlice { buffer: &self.tensors, offset, size: 4 }
    }

    /// [`record`](Self::record) and submit.
    ///
    /// # Errors
    /// As for [`record`](Self::record).
    pub fn step(&mut self) -> Result<wgpu::SubmissionIndex, Error> {
        let mut encoder = self.encoder();
        self.record(&mut encoder)?;
        Ok(self.queue.submit([encoder.finish()]))
    }

    /// [`record_with`](Self::record_with) and submit.
    ///
    /// # Errors
    /// As for [`record_with`](Self::record_with).
    pub fn step_with<'a, B>(&mut self, buffers: &[B]) -> Result<wgpu::SubmissionIndex, Error>
    where
        B: Copy + Into<Option<TensorBuffers<'a>>>,
    {
        let mut encoder = self.encoder();
        self.record_with(&mut encoder, buffers)?;
        Ok(self.queue.submit([encoder.finish()]))
    }

    fn begin<'a>(&self, encoder: &'a mut wgpu::CommandEncoder) -> wgpu::ComputePass<'a> {
        if self.schedule.dispatches.iter().any(|dispatch| dispatch.kernel.is_indirect()) {
            encoder.clear_buffer(&self.launches.0, 0, None);
        }
        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
            label: Some("wgpu-optim.step"),
            timestamp_writes: None,
        })
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
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
    fn dispatch_in(
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
            _ => bits,
        };
        let groups = [tensors, scratch, Some(&self.counters)];
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
            let spec = self.plan.order.iter().position(|&t| t == page.tensors.start);
            let first = 4 * (page.offset - tensor.offset);
            let size = 4 * page.numel.next_multiple_of(4);
            let slices = spec.and_then(|spec| buffers[spec].as_ref()).map_or(&[][..], |given| given.state);
            let names = self.plan.classes[page.class].base.state_names();
            let slices = slices.iter().take(names.len());
            ranges.extend(slices.map(|s| range(s.buffer, s.offset + first, size)));
        } else {
            let own = self.states[page.block].iter();
            ranges.extend(own.map(|buffer| range(buffer, 4 * page.offset, 4 * page.len)));
        }
        let entries: Vec<_> = ranges
            .into_iter()
            .enumerate()
            .map(|(i, resource)| wgpu::BindGroupEntry { binding: i as u32, resource })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("wgpu-optim.tensors"),
            layout: &self.kernels.tensors[&self.plan.classes[page.class].base],
            entries: &entries,
        })
    }

    /// Sets the learning rate of all groups, from the next recorded step on.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is negative or not finite.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), Error> {
        (0..self.groups.recipes().len()).try_for_each(|group| self.set_group_lr(group, lr))
    }

    /// Sets the learning rate of one group, and in proportion that of its fallback, from the next recorded step on.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is negative or not finite, [`Error::Plan`] if there is no such group.
    pub fn set_group_lr(&mut self, group: usize, lr: f64) -> Result<(), Error> {
        check("lr", lr, finite_non_negative)?;
        let Some(initial) = self.initial.get(group) else {
            let count = self.initial.len();
            return Err(Error::Plan(format!("there is no parameter group {group}, only {count}")));
        };
        let recipe = initial.with_lr(lr);
        recipe.validate()?;
        self.groups.recipes_mut()[group] = recipe;
        Ok(())
    }

    /// Sets the norm to which gradients are clipped, from the next recorded step on.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not positive and finite; [`Error::Plan`] if the optimizer was made without clipping.
    pub fn set_max_grad_norm(&mut self, max_norm: f64) -> Result<(), Error> {
        check("max_grad_norm", max_norm, finite_positive)?;
        self.clips()?;
        self.groups = self.groups.clone().with_max_grad_norm(max_norm);
        Ok(())
    }

    fn clips(&self) -> Result<(), Error> {
        if self.groups.max_grad_norm().is_some() {
            return Ok(());
        }
        Err(Error::Plan(
            "this optimizer does not clip gradients; give its parameter groups a `max_grad_norm`".to_owned(),
        ))
    }

    /// The parameter groups, with their learning rates as they are now.
    pub fn groups(&self) -> &ParamGroups {
        &self.groups
    }

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
        Ok(TensorSlice { buffer: &arena[which], offset: 4 * tensor.offset, size: tensor.bytes() })
    }

    /// The names of a tensor's state.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn state_names(&self, name: &str) -> Result<impl Iterator<Item = &'static str> + use<>, Error> {
        let base = self.plan.base_of(self.plan.tensor(name)?);
        Ok(base.state_names().iter().chain(base.scalar_names()).copied())
    }

    /// Where a state lies: `exp_avg` and `exp_avg_sq` of AdamW, `exp_avg` of Lion, `momentum_buffer` of Muon and AdaGO,
    /// `accumulator` of AdaGO, one number, which can be copied but lies too close to others to be bound.
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
        let names = base.state_names();
        let Some(index) = names.iter().position(|n| *n == state) else {
            let known = self.state_names(name)?.collect::<Vec<_>>().join(", ");
            return Err(Error::UnknownState { name: state.to_owned(), known });
        };
        let buffer = &self.states[tensor.block][index];
        Ok(TensorSlice { buffer, offset: 4 * tensor.offset, size: tensor.bytes() })
    }

    /// Writes a parameter from the host. It lands before the next submit.
    ///
    /// # Errors
    /// As for [`param`](Self::param); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_param(&self, name: &str, data: &[f32]) -> Result<(), Error> {
        self.write(name, "parameter", self.param(name)?, data)
    }

    /// Writes a gradient from the host. It lands before the next submit.
    ///
    /// # Errors
    /// As for [`write_param`](Self::write_param).
    pub fn write_grad(&self, name: &str, data: &[f32]) -> Result<(), Error> {
        self.write(name, "gradient", self.grad(name)?, data)
    }

    /// Writes a state from the host, as when resuming; see also [`set_steps`](Self::set_steps). It lands before the next
    /// submit.
    ///
    /// # Errors
    /// As for [`state`](Self::state); [`Error::Slice`] if the length is not the tensor's.
    pub fn write_state(&self, name: &str, state: &str, data: &[f32]) -> Result<(), Error> {
        self.write(name, "state", self.state(name, state)?, data)
    }

    fn write(&self, name: &str, what: &'static str, to: TensorSlice<'_>, data: &[f32]) -> Result<(), Error> {
        if to.size != 4 * data.len() as u64 {
            return Err(Error::Slice {
                tensor: name.to_owned(),
                what,
                reason: format!("{} values given, {} needed", data.len(), to.size / 4),
            });
        }
        self.queue.write_buffer(to.buffer, to.offset, bytemuck::cast_slice(data));
        Ok(())
    }

    /// Records the clearing of all gradients in the optimizer's arena.
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

    /// Steps that a tensor has taken: t of the bias corrections.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn steps(&self, name: &str) -> Result<u64, Error> {
        Ok(self.steps[self.plan.tensor_index(name)?])
    }

    /// Sets the number of steps that every tensor has taken, as when resuming.
    pub fn set_steps(&mut self, steps: u64) {
        self.steps.fill(steps);
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
        self.steps[tensor] = steps;
        Ok(())
    }

    /// Reads a parameter. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// As for [`param`](Self::param), when called; [`Error::Readback`], when awaited.
    pub fn read_param(
        &self,
        name: &str,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + use<>, Error> {
        Ok(self.read(name, self.param(name)?))
    }

    /// Reads a state. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// As for [`state`](Self::state), when called; [`Error::Readback`], when awaited.
    pub fn read_state(
        &self,
        name: &str,
        state: &str,
    ) -> Result<impl Future<Output = Result<Vec<f32>, Error>> + use<>, Error> {
        Ok(self.read(name, self.state(name, state)?))
    }

    /// Reads what selection did to a tensor in the last step that ran. For a tensor that was left out of that step, it means
    /// nothing. Off the web, poll the device until the future is ready.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`], when called; [`Error::Readback`], when awaited.
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
        let offset = TENSORS_HEADER + size * self.plan.tensor_index(name)? as u64;
        let ranges = [(&self.tensors, offset, size)];
        let bytes = readback::read(&self.device, &self.queue, name, &ranges);
        let what = name.to_owned();
        Ok(async move {
            let bytes = bytes.await?;
            let mut found = TensorEntry::default();
            encase::StorageBuffer::new(bytes)
                .read(&mut found)
                .map_err(|e| Error::Readback { what: what.clone(), reason: e.to_string() })?;
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
    /// [`Error::Plan`] if the optimizer does not clip, when called; [`Error::Readback`], when awaited.
    pub fn read_grad_norm(&self) -> Result<impl Future<Output = Result<f32, Error>> + use<>, Error> {
        self.clips()?;
        let bytes = readback::read(&self.device, &self.queue, "gradient norm", &[(&self.tensors, 0, 4)]);
        Ok(async move { Ok(bytemuck::pod_collect_to_vec(&bytes.await?)[0]) })
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
            let offset = TENSORS_HEADER + TensorEntry::min_size().get() * i as u64 + 4 * first;
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
    ) -> impl Future<Output = Result<Vec<f32>, Error>> + use<> {
        let ranges = [(slice.buffer, slice.offset, slice.size)];
        let bytes = readback::read(&self.device, &self.queue, name, &ranges);
        async move { Ok(bytemuck::pod_collect_to_vec(&bytes.await?)) }
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

    /// [`read_grad_norm`](Self::read_grad_norm), blocking.
    ///
    /// # Errors
    /// As for [`read_grad_norm`](Self::read_grad_norm).
    pub fn read_grad_norm_blocking(&self) -> Result<f32, Error> {
        readback::block_on(&self.device, self.read_grad_norm()?)
    }
}

impl std::fmt::Debug for GpuOptimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuOptimizer")
            .field("groups", &self.groups)
            .field("tensors", &self.plan.tensors.len())
            .field("parameters", &self.plan.numel())
            .finish_non_exhaustive()
    }
}

/// Where a dispatch over the caller's buffers finds its work.
struct Placed {
    /// Its grid's place in the slot.
    grid: u64,
    first_row: u32,
    batch: Option<usize>,
}

/// The first two buffers of a bind group of tensors, and the third where that is a workspace.
fn operand_ranges<'a>(
    operands: Operands,
    param: wgpu::BindingResource<'a>,
    grad: wgpu::BindingResource<'a>,
    workspace: impl Fn(usize) -> wgpu::BindingResource<'a>,
) -> Vec<wgpu::BindingResource<'a>> {
    match operands {
        Operands::Directions => vec![workspace(DIRECTIONS), grad],
        Operands::Orthogonal(index) => vec![param, grad, workspace(index)],
        Operands::Tensors | Operands::Workspaces(_) => vec![param, grad],
    }
}

/// What a slot of the ring holds: uniforms, each at a multiple of the alignment of dynamic offsets, then a table.
#[derive(Default)]
struct SlotBytes(Vec<u8>);

impl SlotBytes {
    /// Adds a uniform, and returns its place in the slot.
    fn push<T: ShaderType + encase::internal::WriteInto>(&mut self, uniform: &T) -> u64 {
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
    fn of(&mut self, slice: TensorSlice<'a>) -> Place {
        let buffer = *self.1.entry(slice.buffer).or_insert_with(|| {
            self.0.push(slice.buffer);
            self.0.len() - 1
        });
        Place { buffer, offset: slice.offset, size: slice.size }
    }
}

fn range(buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset,
        size: std::num::NonZeroU64::new(size),
    })
}
