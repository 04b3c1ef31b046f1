//! Buffers, bind groups and pipelines of an optimizer.

use std::cell::RefCell;
use std::sync::Arc;

use encase::ShaderType;

use super::{GpuOptimizer, PageGroups, operand_ranges, range, state_ranges};
use crate::adapter::{self, Probe};
use crate::error::Error;
use crate::groups::ParamGroups;
use crate::kernel::{Grid, Header, Kernels, STRIDE, TENSORS_HEADER, TensorEntry, table};
use crate::matrix::{Matmul, Matrix};
use crate::passes::{Operands, Schedule};
use crate::plan::{Chunk, Ownership, Plan, PolicyKind, RATES, ROWS, TensorSpec};
use crate::precision::Precision;
use crate::requirements::{Requirements, plan_limits};
use crate::ring::Ring;
use crate::submissions::Submissions;
use crate::telemetry::Mailbox;

const COPIES: wgpu::BufferUsages = wgpu::BufferUsages::COPY_SRC.union(wgpu::BufferUsages::COPY_DST);

/// The buffers of parameters, gradients, state and what kernels hand to each other.
struct Memory {
    all: Vec<wgpu::Buffer>,
    probe: Probe,
    /// Of parameters and of gradients, a pair a block, as the following.
    arenas: Vec<[wgpu::Buffer; 2]>,
    states: Vec<Vec<wgpu::Buffer>>,
    masters: Vec<wgpu::Buffer>,
    sums: Vec<wgpu::Buffer>,
    snapshots: Vec<wgpu::Buffer>,
    scratch: Vec<wgpu::Buffer>,
    workspaces: [wgpu::Buffer; 5],
}

impl Memory {
    fn new(device: &wgpu::Device, plan: &Plan) -> Self {
        let storage = wgpu::BufferUsages::STORAGE;
        let probe = Probe::new(device);
        let mut all = vec![probe.buffer()];
        let mut buffer = |what: &str, size: u64, usage| {
            let buffer = zeros(device, what, size, usage);
            all.push(buffer.clone());
            buffer
        };
        let mut arenas = Vec::new();
        let mut states: Vec<Vec<wgpu::Buffer>> = Vec::new();
        let (mut masters, mut sums, mut snapshots) = (Vec::new(), Vec::new(), Vec::new());
        for block in &plan.blocks {
            if plan.ownership == Ownership::Arenas {
                let size = plan.precision.bytes() * block.len;
                arenas.push(["arena.param", "arena.grad"].map(|what| buffer(what, size, storage | COPIES)));
            }
            let base = plan.classes[block.class].base;
            let names = match plan.ownership {
                Ownership::Stateless => &[],
                _ => base.state_names(),
            };
            let state = |(i, name): (usize, &&str)| {
                let len = if base.is_of_rows(i) { block.rows } else { block.len };
                buffer(&format!("state.{name}"), 4 * len, storage | COPIES)
            };
            states.push(names.iter().enumerate().map(state).collect());
            if plan.precision != Precision::F32 {
                masters.push(buffer("master", 4 * block.len, storage | COPIES));
            }
            if plan.accumulates {
                sums.push(buffer("sum", 4 * block.len, storage | COPIES));
            }
            if plan.observes {
                snapshots.push(buffer("snapshot", 4 * block.len, storage));
            }
        }
        let scratch =
            plan.scratch_blocks.iter().map(|&size| buffer("scratch", size, storage | COPIES)).collect();
        let workspaces = plan.workspaces.map(|size| buffer("workspace", size.max(16), storage));
        Self { all, probe, arenas, states, masters, sums, snapshots, scratch, workspaces }
    }
}

/// A new buffer, which wgpu clears: state begins at zero.
fn zeros(device: &wgpu::Device, what: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(&format!("wgpu-optim.{what}")),
        size: size.max(4),
        usage,
        mapped_at_creation: false,
    })
}

/// Catches every kind of error of a device.
struct Scopes([wgpu::ErrorScopeGuard; 3]);

impl Scopes {
    fn new(device: &wgpu::Device) -> Self {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        Self([Validation, OutOfMemory, Internal].map(|filter| device.push_error_scope(filter)))
    }

    /// The first error, if there was one. Off the web the future can be sent, as the scopes themselves cannot.
    fn first_error(self) -> impl Future<Output = Option<wgpu::Error>> + use<> {
        let errors = self.0.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect::<Vec<_>>();
        async move {
            let mut first = None;
            for error in errors {
                first = first.or(error.await);
            }
            first
        }
    }
}

/// What an error of wgpu means to whoever wants an optimizer.
fn refusal(probe: &Probe, error: wgpu::Error, device: &wgpu::Device, plan: &Plan) -> Error {
    let adapter = adapter::describe(&device.adapter_info());
    match (error, probe.check()) {
        // First: some lacks of memory lose the device as well.
        (wgpu::Error::OutOfMemory { source }, _) => {
            Error::OutOfMemory { adapter, needed: plan.memory(), reason: source.to_string() }
        }
        (_, Err(lost)) => lost,
        (error, Ok(())) => Error::Gpu(format!("{error} ({adapter})")),
    }
}

impl GpuOptimizer {
    pub(super) async fn build(
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
        if compiled.is_none() {
            groups.recipes().iter().for_each(|recipe| recipe.base.warn());
        }
        let scopes = Scopes::new(device);
        let memory = Memory::new(device, &plan);
        if let Some(error) = scopes.first_error().await {
            let refusal = refusal(&memory.probe, error, device, &plan);
            // A browser would keep the memory until it collects garbage.
            memory.all.iter().for_each(wgpu::Buffer::destroy);
            return Err(refusal);
        }
        // The tables take memory of the host, of which the buffers may have left none.
        let scopes = Scopes::new(device);
        let optimizer = Self::assemble(device, queue, groups, plan, compiled, memory);
        if let Some(error) = scopes.first_error().await {
            let refusal = refusal(&optimizer.probe, error, device, &optimizer.plan);
            optimizer.destroy();
            return Err(refusal);
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

    fn assemble(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        groups: ParamGroups,
        plan: Plan,
        compiled: Option<&Kernels>,
        memory: Memory,
    ) -> Self {
        let storage = wgpu::BufferUsages::STORAGE;
        let Memory { all, probe, arenas, states, masters, sums, snapshots, scratch, workspaces } = memory;
        let buffers = RefCell::new(all);
        let buffer = |what: &str, size, usage| {
            let buffer = zeros(device, what, size, usage);
            buffers.borrow_mut().push(buffer.clone());
            buffer
        };
        let filled = |what: &str, bytes: &[u8], usage: wgpu::BufferUsages| {
            let buffer = buffer(what, bytes.len() as u64, usage | COPIES);
            queue.write_buffer(&buffer, 0, bytes);
            buffer
        };

        let matmul = groups.matmul().unwrap_or_else(|| Matmul::of(device));
        let schedule = Schedule::new(&plan, device.limits().max_compute_workgroups_per_dimension, matmul);
        let kernels = Kernels::new(device, &plan, &schedule, compiled);
        let entries: Vec<_> = plan
            .tensors
            .iter()
            .zip(&plan.words)
            .map(|(tensor, words)| {
                let recipe = groups.recipe_of(&tensor.spec);
                let matrix = tensor.spec.matrix().filter(|_| recipe.base.newton_schulz().is_some());
                let own = TensorEntry {
                    k: tensor.k as u32,
                    components: tensor.spec.components.max(1) as u32,
                    rates: tensor.rates,
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
        let mut header = encase::StorageBuffer::new(Vec::with_capacity(TENSORS_HEADER as usize));
        header.write(&Header::new(&groups)).expect("a vector grows");
        let header = header.into_inner();
        let tensors = {
            let usage = storage | wgpu::BufferUsages::UNIFORM;
            filled("table.tensors", &[header, table(&entries)].concat(), usage)
        };
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
            // Tensors that were added later have rows of their own.
            Ownership::Arenas => groups.row_count() + plan.tensors.len().min(ROWS),
            // A step that needs more, as where each tensor lies in a buffer of its own, makes room for it.
            _ => groups.row_count() + schedule.grids.len(),
        };
        // When tensors are resized, a grid for each of their parts.
        let slot_bytes = STRIDE * rows.max(5) as u64 + table_bytes;
        let ring = Ring::new(device, slot_bytes, table_bytes.max(STRIDE * ROWS as u64));
        buffers.borrow_mut().push(ring.buffer.clone());

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
        let uniform = wgpu::BufferUsages::UNIFORM;
        let rates = match plan.rates {
            // Bound by every kernel, and read by none.
            0 => buffer("rates", 16, uniform),
            _ => filled("rates", bytemuck::cast_slice(&[1.0f32; RATES as usize]), storage | uniform),
        };
        let tables =
            bind_tables(device, &kernels, [&grids, &chunks, &ring.buffer, &tensors, &rates], table_bytes);
        let counters = buffer("counters", 4 * plan.counters, storage);
        let counters = group("counters", &kernels.counters, &[counters.as_entire_binding()]);
        let samples = buffer("samples", 4 * plan.samples.max(4), storage | COPIES);
        let samples = group("samples", &kernels.scratch, &[samples.as_entire_binding()]);
        let launches = buffer(
            "launches",
            12 * plan.classes.len() as u64,
            storage | COPIES | wgpu::BufferUsages::INDIRECT,
        );
        let launches_group = group("launches", &kernels.scratch, &[launches.as_entire_binding()]);
        let observations = plan.observes.then(|| {
            let buffer = buffer("observations", plan.observations(), storage | COPIES);
            let group = group("observations", &kernels.counters, &[buffer.as_entire_binding()]);
            (buffer, group)
        });
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
                    let (sum, master) = (sums.get(page.block), masters.get(page.block));
                    let unit = plan.precision.bytes();
                    let stored = |buffer| range(buffer, unit * page.offset, unit * page.len);
                    let own = |operands| {
                        // A step takes the masters, and the sums of gradients, where there are any.
                        let param = master.map_or_else(|| stored(param), part);
                        let grad = sum.map_or_else(|| stored(grad), part);
                        let mut ranges = operand_ranges(operands, param, grad, workspace);
                        if !matches!(operands, Operands::Orthogonal(_)) {
                            ranges.extend(state_ranges(class.base, &states[page.block], page));
                        }
                        (operands, group("tensors", &kernels.tensors[&class.base], &ranges))
                    };
                    let pair = |operands, left, right| {
                        (operands, group("pairs", &kernels.pairs, &[part(left), stored(right)]))
                    };
                    let add = sum.map(|sum| pair(Operands::Sums, sum, grad));
                    let round = master.map(|master| pair(Operands::Masters, master, param));
                    operands[page.class].iter().copied().map(own).chain(add).chain(round).collect()
                });
                let (block, offset, size) = page.scratch;
                let scratch = (class.policy.bits(class.base) > 0)
                    .then(|| group("scratch", &kernels.scratch, &[range(&scratch[block], offset, size)]));
                let snapshot = snapshots
                    .get(page.block)
                    .map(|snapshot| group("snapshot", &kernels.scratch, &[part(snapshot)]));
                PageGroups { own, scratch, snapshot }
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
            buffers: buffers.into_inner(),
            probe,
            steps: vec![0; plan.tensors.len()],
            has_sum: vec![false; plan.tensors.len()],
            submissions: Submissions::default(),
            own_rows: None,
            chunks,
            initial: groups.recipes().to_vec(),
            groups,
            plan,
            schedule,
            kernels,
            ring,
            arenas,
            states,
            sums,
            masters,
            rates,
            observations,
            mailbox: Mailbox::default(),
            micro_batches: 0,
            recorded: 0,
            grad_scale: 1.0,
            reported: Arc::default(),
            scratch,
            workspaces,
            orders,
            tensors,
            grids,
            table_bytes,
            tables,
            counters,
            samples,
            launches: (launches, launches_group),
            empty,
            pages,
            operands,
        }
    }
}

/// Bind groups of the tables: the plan's, and a step's with `table_bytes` of chunks. Both read their rows from the ring.
fn bind_tables(
    device: &wgpu::Device,
    kernels: &Kernels,
    [grids, chunks, ring, tensors, rates]: [&wgpu::Buffer; 5],
    table_bytes: u64,
) -> [wgpu::BindGroup; 2] {
    [(grids, chunks, chunks.size()), (ring, ring, table_bytes)].map(|(grids, chunks, table_bytes)| {
        let resources = [
            range(grids, 0, Grid::min_size().get()),
            range(ring, 0, STRIDE * ROWS as u64),
            range(chunks, 0, table_bytes),
            tensors.as_entire_binding(),
            rates.as_entire_binding(),
        ];
        let entries: Vec<_> = (0..)
            .zip(resources)
            .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource })
            .collect();
        device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("wgpu-optim.tables"),
            layout: &kernels.tables,
            entries: &entries,
        })
    })
}

impl GpuOptimizer {
    /// Makes room for steps that need so many bytes of the ring.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if they exceed a buffer.
    pub(super) fn fit_ring(&mut self, slot_bytes: u64) -> Result<(), Error> {
        let old = self.ring.buffer.clone();
        if self.ring.fit(&self.device, slot_bytes)? {
            // What was recorded keeps the old one until it is submitted.
            self.buffers.retain(|buffer| *buffer != old);
            self.buffers.push(self.ring.buffer.clone());
            let buffers = [&self.grids, &self.chunks, &self.ring.buffer, &self.tensors, &self.rates];
            self.tables = bind_tables(&self.device, &self.kernels, buffers, self.table_bytes);
        }
        Ok(())
    }
}
