//! [`GpuOptimizer`]: owns the state, records the steps.

mod access;
mod build;
#[cfg(not(target_arch = "wasm32"))]
mod checkpoint;
mod observe;
mod record;
mod resize;

#[cfg(not(target_arch = "wasm32"))]
pub use checkpoint::{Checkpoint, FORMAT_VERSION};

pub use resize::Rows;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::adapter::Probe;
use crate::error::Error;
use crate::groups::ParamGroups;
use crate::kernel::{Kernels, MASTERED, table};
use crate::passes::{DIRECTIONS, Operands, Schedule};
use crate::plan::{BaseKind, Ownership, Page, Plan, ROWS, TensorSpec};
use crate::ranges::{check, finite_non_negative, finite_positive};
use crate::recipe::Recipe;
use crate::ring::Ring;
use crate::submissions::Submissions;
use crate::telemetry::Mailbox;

/// Optimizer steps on a GPU.
///
/// It borrows a device and a queue, keeps all state in storage buffers, and records a step into the caller's encoder.
/// Parameters and gradients lie either in its own arenas ([`GpuOptimizer::new`]) or in buffers of the caller, given anew
/// each step ([`GpuOptimizer::for_buffers`]); the state, too, may be the caller's ([`GpuOptimizer::stateless`]).
///
/// Computing is f32. A step of one adapter on the same inputs gives the same bits. A non-finite value in one
/// coordinate of a gradient, parameter or state leaves that coordinate unspecified and touches no other, except within its
/// matrix under Muon and AdaGO, within its row where rows have a second moment, and through the norm that gradients are clipped to.
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
    probe: Probe,
    /// All of its buffers, those included that only bind groups name.
    buffers: Vec<wgpu::Buffer>,
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
    /// Chunks, pieces and matrices of the plan.
    chunks: wgpu::Buffer,
    /// What the dispatches of the plan work on.
    grids: wgpu::Buffer,
    /// Bytes of the chunks of a step in a slot of the ring.
    table_bytes: u64,
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
    /// Where tensors in arenas have not taken the same number of steps: of each of their rows, that of the groups, and how many steps
    /// it is behind.
    own_rows: Option<Vec<(usize, u64)>>,
    /// Steps that each tensor was part of, those included that the GPU skipped.
    steps: Vec<u64>,
    /// Steps that were recorded: the place in the schedules of learning rates.
    recorded: u64,
    /// What gradients are multiplied by.
    grad_scale: f64,
    /// Sums of gradients of each block, where a step has several micro-batches; and how many of them are recorded.
    sums: Vec<wgpu::Buffer>,
    /// Parameters in f32 of each block, where they are stored in fewer bits. The GPU decides whether a tensor's hold its values
    /// (`mastered` of its entry).
    masters: Vec<wgpu::Buffer>,
    micro_batches: u32,
    /// Whether gradients of a tensor are added up that no step has taken.
    has_sum: Vec<bool>,
    submissions: Submissions,
    /// Factors of learning rates.
    rates: wgpu::Buffer,
    /// What is observed of a step, and where it waits once it was read.
    observations: Option<(wgpu::Buffer, wgpu::BindGroup)>,
    mailbox: Mailbox,
    /// Skipped steps that were reported as errors.
    reported: Arc<AtomicU32>,
}

/// The bind groups of a page.
struct PageGroups {
    /// With its part of the arenas, where there are any: for each kind of operands.
    own: Vec<(Operands, wgpu::BindGroup)>,
    scratch: Option<wgpu::BindGroup>,
    /// The copy of its parameters, where steps are observed.
    snapshot: Option<wgpu::BindGroup>,
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

/// Rows of tensors in arenas: the groups' row and how many steps it is behind; and the index of each tensor's.
#[derive(Debug, Default)]
struct OwnRows {
    all: Vec<(usize, u64)>,
    of: Vec<u32>,
}

/// What the host counts about an optimizer.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Counts {
    steps: Vec<u64>,
    recorded: u64,
    micro_batches: u32,
    has_sum: Vec<bool>,
    submissions: u64,
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
    /// pipelines that are compiled already. The future does not borrow this one, which may go on stepping.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn sibling<G: Into<ParamGroups>>(
        &self,
        specs: &[TensorSpec],
        groups: G,
    ) -> impl Future<Output = Result<Self, Error>> + use<G> {
        let (device, queue, kernels) = (self.device.clone(), self.queue.clone(), self.kernels.clone());
        let (specs, groups, ownership) = (specs.to_vec(), groups.into(), self.plan.ownership);
        async move { Self::build(&device, &queue, &specs, groups, ownership, Some(&kernels)).await }
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

    /// Frees its memory on the GPU as soon as what was submitted is done, also where a clone of a buffer is still held; what was
    /// recorded and not submitted can no longer be. Dropping it frees what nothing refers to; in a browser, when garbage is next
    /// collected.
    pub fn destroy(self) {
        self.buffers.iter().for_each(wgpu::Buffer::destroy);
    }

    /// How everything lies in memory.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Which dispatches make a step.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
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
        self.has_group(group)?;
        let recipe = self.initial[group].with_lr(lr);
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

    /// Multiplies the gradients by this from the next recorded step on, before they are limited and clipped: 1/n undoes a loss that
    /// was multiplied by n. Costs nothing. 1 at first.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not positive and finite.
    pub fn set_grad_scale(&mut self, scale: f64) -> Result<(), Error> {
        check("grad_scale", scale, finite_positive)?;
        check(
            "grad_scale over micro-batches",
            scale / f64::from(self.groups.accumulation()),
            finite_positive,
        )?;
        self.grad_scale = scale;
        Ok(())
    }

    /// The learning rate of a group in the next step: the one that was set, times the schedule's factor.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no such group, [`Error::Recipe`] if a schedule's function leaves its range.
    pub fn lr(&self, group: usize) -> Result<f64, Error> {
        self.has_group(group)?;
        Ok(self.groups.scheduled(group, self.recorded)?.lr())
    }

    /// Steps that were recorded: the place in the schedules of learning rates.
    pub fn recorded_steps(&self) -> u64 {
        self.recorded
    }

    /// Sets the place in the schedules of learning rates, as when resuming.
    pub fn set_recorded_steps(&mut self, steps: u64) {
        self.recorded = steps;
    }

    /// Takes the parameters for masters, as they are stored in two bytes: after something else than the optimizer has changed
    /// them. In arenas it is submitted at once. In buffers of the caller's it happens with the next step of each tensor that is recorded,
    /// as it does by itself with the first: submit before what was recorded. Nothing happens at
    /// [`Precision::F32`](crate::Precision::F32).
    pub fn forget_masters(&self) {
        self.set_mastered((0..self.plan.tensors.len()).map(|tensor| (tensor, false)));
        if self.plan.ownership == Ownership::Arenas {
            let mut encoder = self.encoder();
            self.record_own(&mut encoder, &self.schedule.widen);
            self.queue.submit([encoder.finish()]);
        }
    }

    /// Says whether the masters of tensors hold their values, from the next submit on.
    fn set_mastered(&self, mastered: impl Iterator<Item = (usize, bool)>) {
        if self.masters.is_empty() {
            return;
        }
        for (tensor, is_mastered) in mastered {
            let word = u32::from(is_mastered);
            self.queue.write_buffer(&self.tensors, self.entry(tensor) + MASTERED, &word.to_le_bytes());
        }
    }

    /// Micro-batches that were recorded since the last step.
    pub fn micro_batches(&self) -> u32 {
        self.micro_batches
    }

    /// What gradients are multiplied by.
    pub fn grad_scale(&self) -> f64 {
        self.grad_scale
    }

    /// The rows of tensors in arenas that have taken so many steps, where these differ, as after a tensor was added; and each
    /// tensor's.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are more than a dispatch can tell apart.
    fn rows_after(&self, steps: &[u64]) -> Result<Option<OwnRows>, Error> {
        let most = steps.iter().copied().max().unwrap_or(0);
        if self.plan.ownership != Ownership::Arenas || steps.iter().all(|&taken| taken == most) {
            return Ok(None);
        }
        let mut rows = OwnRows::default();
        for (tensor, &taken) in self.plan.tensors.iter().zip(steps) {
            let row = (tensor.row, most - taken);
            let known = rows.all.iter().position(|known| *known == row);
            rows.of.push(known.unwrap_or(rows.all.len()) as u32);
            if known.is_none() {
                rows.all.push(row);
            }
            if rows.all.len() > ROWS {
                return Err(Error::Plan(format!(
                    "tensors have taken different numbers of steps in more than the {ROWS} ways that a step can tell apart"
                )));
            }
        }
        Ok(Some(rows))
    }

    /// Gives tensors in arenas rows of their own where they have not taken the same number of steps.
    ///
    /// # Errors
    /// As for [`rows_after`](Self::rows_after).
    fn arrange_rows(&mut self) -> Result<(), Error> {
        let rows = self.rows_after(&self.steps)?;
        if rows.is_none() && self.own_rows.is_none() {
            return Ok(());
        }
        let mut chunks = self.plan.chunks.clone();
        if let Some(rows) = &rows {
            chunks.iter_mut().for_each(|chunk| chunk.row = rows.of[chunk.tensor as usize]);
        }
        self.queue.write_buffer(&self.chunks, 0, &table(&chunks));
        self.own_rows = rows.map(|rows| rows.all);
        Ok(())
    }

    fn has_group(&self, group: usize) -> Result<(), Error> {
        let count = self.initial.len();
        if group < count {
            return Ok(());
        }
        Err(Error::Plan(format!("there is no parameter group {group}, only {count}")))
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
        Operands::Tensors | Operands::Workspaces(_) | Operands::Sums | Operands::Masters => {
            vec![param, grad]
        }
    }
}

/// The state of a page's tensors: its part of what coordinates have, all of what rows have.
fn state_ranges<'a>(
    base: BaseKind,
    states: &'a [wgpu::Buffer],
    page: &Page,
) -> impl Iterator<Item = wgpu::BindingResource<'a>> + use<'a> {
    let (offset, size) = (4 * page.offset, 4 * page.len);
    states.iter().enumerate().map(move |(i, buffer)| match base.is_of_rows(i) {
        true => buffer.as_entire_binding(),
        false => range(buffer, offset, size),
    })
}

fn range(buffer: &wgpu::Buffer, offset: u64, size: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
        buffer,
        offset,
        size: std::num::NonZeroU64::new(size),
    })
}
