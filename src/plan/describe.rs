//! The program of a plan: its stages over arenas, with everything that a host of WebGPU needs to know.

use super::assemble::assemble;
use super::batches::Placement;
use super::cost::Cost;
use super::held::{self, Holder};
use super::layout::{Ownership, Plan, PlanLimits, ROWS};
use super::program::{Bound, Buffer, Dispatch, PROGRAM_VERSION, Place, Placed, Program, Usage, When};
use super::scalars::{self, UniformBytes};
use super::stage::Pair;
use super::storage::Storage;
use super::work::{Placements, work};
use crate::error::Result;
use crate::kernel::catalog::Kernel;
use crate::kernel::linker::Binding;
use crate::kernel::tables::{Grid, STRIDE, Scalars, table};
use crate::recipe::groups::ParamGroups;
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::Matmul;
use crate::recipe::spec::TensorSpec;

impl Program {
    /// The program of a step over the optimizer's own buffers, for a device with these limits. `matmul` is how matrix bases multiply
    /// matrices.
    ///
    /// # Errors
    /// As for [`GpuOptimizer::new`](crate::GpuOptimizer::new), if specs or groups are not valid or exceed the limits.
    pub fn new(
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
        limits: PlanLimits,
        matmul: Matmul,
    ) -> Result<Self> {
        let groups = groups.into();
        let plan = Plan::new(specs, &groups, Ownership::Arenas, limits)?;
        let shape = groups.launch_shape.unwrap_or(LaunchShape::of(matmul));
        Ok(Self::build(&plan, limits.binding, 65_535, (matmul, shape), Some(&groups)))
    }

    /// The program of a plan, its tables without contents. The caller's buffers are laid out as arenas are.
    #[doc(hidden)]
    pub fn of(plan: &Plan, binding: u64, workgroups: u32, matmul: Matmul) -> Self {
        // The caller's buffers are laid out as arenas are.
        let plan = Plan { ownership: Ownership::Arenas, ..plan.clone() };
        Self::build(&plan, binding, workgroups, (matmul, LaunchShape::of(matmul)), None)
    }

    /// The program over arenas. The groups fill its tables.
    fn build(
        plan: &Plan,
        binding: u64,
        workgroups: u32,
        adapter: (Matmul, LaunchShape),
        groups: Option<&ParamGroups>,
    ) -> Self {
        let mut storage = Storage::new(plan);
        let stages = assemble(plan, &storage, workgroups, adapter);
        let of = |pair: Pair| {
            let placement = |&tensor: &usize| {
                let row = plan.tensors[tensor].row as u32;
                Placement::new((plan, &storage), tensor, pair, None, row)
            };
            plan.order.iter().map(placement).collect()
        };
        let placements = Placements { of: &of, state: &|_, _| unreachable!("arenas hold the state") };
        let work = work((plan, &storage, &stages), &placements, &|_| true, (workgroups, binding));

        assert!(work.chunks.is_empty() && work.grids.is_empty(), "arenas lie as planned");
        storage.buffers[storage.grids].size = STRIDE * stages.all.len() as u64;
        let rows = plan.tensors.iter().map(|tensor| tensor.row).max().unwrap_or(0) + ROWS;
        let scalars = storage.buffers.len();
        let (label, size) = ("wgpu-optim.scalars".to_owned(), STRIDE * rows as u64);
        storage.buffers.push(Buffer { label, size, usage: Usage::Uniform, contents: Vec::new() });

        let dispatches = work.dispatches.iter().map(|bound| {
            let (stage, (kernel, _)) = (&stages.all[bound.stage], &stages.kernels[bound.kernel]);
            let whole = |buffer: usize| (buffer, 0, storage.buffers[buffer].size);
            let place = |binding: &Binding| match (binding.group, binding.binding) {
                (0, 0) => (storage.grids, STRIDE * bound.grid as u64, size_of::<Grid>() as u64),
                (0, 1) => (scalars, STRIDE * u64::from(bound.scalars), STRIDE * ROWS as u64),
                (0, 2) => whole(storage.chunks),
                (0, 3) => whole(storage.tensors),
                (0, _) => whole(storage.rates),
                (group, number) => {
                    let group = bound.groups[group as usize - 1].expect("the stage binds what its kernel uses");
                    let entry = work.groups[group].0.iter().find(|entry| entry.binding == number);
                    let entry = entry.expect("the stage binds what its kernel uses");
                    (entry.buffer, entry.offset, entry.size)
                }
            };
            let bindings = kernel.bindings.iter().map(|binding| {
                let (buffer, offset, size) = place(binding);
                let (reads, writes) = (binding.reads, binding.writes);
                Bound { group: binding.group, binding: binding.binding, buffer, offset, size, reads, writes }
            });
            Dispatch {
                purpose: stage.purpose.to_owned(),
                when: stage.when,
                kernel: bound.kernel,
                entry_point: kernel.entry_point.clone(),
                bindings: bindings.collect(),
                count: stage.grid.count,
                workgroups: bound.workgroups,
                after_miss: stage.after_miss,
                bytes: stage.bytes,
                lanes: kernel.lanes,
                serial_rounds: stage.serial_rounds,
            }
        });
        let dispatches = dispatches.collect();
        let kernels = stages.kernels.iter().map(|(kernel, _)| (**kernel).clone()).collect();
        if let Some(groups) = groups {
            storage.fill(storage.tensors, &scalars::tensors(plan, groups));
            storage.fill(storage.grids, &scalars::grids(&stages.all));
            storage.fill(storage.chunks, &table(&plan.chunks));
        }
        let place = |range: held::Range, format: held::Stored| {
            let format = format.name().to_owned();
            Place { buffer: range.buffer, offset: range.offset, size: range.size, format }
        };
        let tensors = plan.order.iter().map(|&tensor| {
            let holder = Holder { plan, storage: &storage, tensor };
            let spec = &plan.tensors[tensor].spec;
            let stored = held::Stored::Float(plan.precision);
            Placed {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                param: place(holder.stored(|block| block.param), stored),
                grad: place(holder.stored(|block| block.grad), stored),
                states: holder
                    .states()
                    .iter()
                    .map(|part| (part.what.to_owned(), place(part.place, part.format)))
                    .collect(),
            }
        });
        let tensors = tensors.collect();
        let scalars = Scalars::FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let cost = Cost::of(plan, &stages.traffic());
        Self {
            version: PROGRAM_VERSION,
            tensors,
            parameters: plan.numel(),
            cost,
            buffers: storage.buffers,
            kernels,
            dispatches,
            scalars,
        }
    }

    /// The words that the host writes into the buffer `wgpu-optim.scalars` before step t, which counts from 1: a set of scalars for each row
    /// of [`scalars`](Self::scalars), 64 words apart. Schedules are at step t − 1. The gradients are multiplied by `grad_scale`.
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Program, Recipe};
    ///
    /// let words = Program::scalars_at(&Recipe::lion(0.5).into(), 1, 1.0)?;
    /// assert_eq!((words.len(), f32::from_bits(words[0])), (64, 0.5)); // `step` comes first
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`](crate::Error::Recipe) if a learning rate or the factor of a schedule's function is out of range.
    pub fn scalars_at(groups: &ParamGroups, t: u64, grad_scale: f64) -> Result<Vec<u32>> {
        let mut bytes = UniformBytes::default();
        for recipe in groups.rows(t.saturating_sub(1))? {
            bytes.push(&Scalars::new(&recipe, t, groups, grad_scale));
        }
        Ok(bytemuck::pod_collect_to_vec(&bytes.0))
    }

    /// Every kernel of a plan, those included that reach tensors one coordinate at a time.
    #[doc(hidden)]
    pub fn all_kernels(plan: &Plan, matmul: Matmul) -> Vec<Kernel> {
        let stages = assemble(plan, &Storage::new(plan), 65_535, (matmul, LaunchShape::of(matmul)));
        stages.kernels.iter().map(|(kernel, _)| (**kernel).clone()).collect()
    }

    /// The dispatches of a step, those left out that observe it, or add micro-batches up.
    pub fn step(&self) -> impl Iterator<Item = &Dispatch> {
        self.dispatches.iter().filter(|dispatch| matches!(dispatch.when, When::Step | When::Average | When::Round))
    }
}
