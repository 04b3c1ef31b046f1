//! [`GpuOptimizer`]: owns the state, records the steps.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use super::adapter::Probe;
use super::pipelines::Pipelines;
use super::ring::Ring;
use super::slices::TensorSlice;
use super::submissions::Submissions;
use super::telemetry::Mailbox;
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::Tensor;
use crate::plan::cost::Cost;
use crate::plan::layout::{Ownership, Plan};
use crate::plan::program::When;
use crate::plan::stage::Stages;
use crate::plan::storage::Storage;
use crate::plan::work::{Group, Work};
use crate::recipe::Recipe;
use crate::recipe::base::BaseKind;
use crate::recipe::groups::ParamGroups;
use crate::recipe::policy::PolicyKind;
use crate::recipe::ranges::{NOT_NEGATIVE, POSITIVE, check};
use crate::recipe::spec::TensorSpec;

/// Optimizer steps on a GPU.
///
/// It keeps its state in storage buffers, and records steps into your encoder. Parameters and gradients lie in its own buffers
/// ([`GpuOptimizer::new`]), or in yours, which you pass to each step ([`GpuOptimizer::for_buffers`]). The state can lie in your buffers
/// too ([`GpuOptimizer::stateless`]).
///
/// Arithmetic is f32. On one adapter, the same step on the same inputs gives the same bits. A NaN or infinity in a gradient, parameter or
/// state leaves only its own coordinate unspecified. Exceptions: it spreads within its matrix under matrix bases, within its row when
/// second moments are per row, within its tensor under Adafactor and AdaGrad-Norm, and through the norm that gradients are clipped to. With
/// [`StateFormat::EightBit`](crate::StateFormat::EightBit), an infinity also stalls the three coordinates that share its word.
pub struct GpuOptimizer {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) groups: ParamGroups,
    /// The recipes before any learning rate was set: a fallback's keeps its proportion to these.
    pub(super) initial: Vec<Recipe>,
    pub(super) plan: Plan,
    pub(super) stages: Stages,
    pub(super) storage: Storage,
    /// The buffers of the storage.
    pub(super) buffers: Vec<wgpu::Buffer>,
    pub(super) pipelines: Pipelines,
    /// The pipelines of the stages' kernels.
    pub(super) compiled: Vec<wgpu::ComputePipeline>,
    pub(super) ring: Ring,
    pub(super) probe: Probe,
    /// Bind groups that hold only the optimizer's own buffers.
    pub(super) bind_groups: Mutex<HashMap<Group, wgpu::BindGroup>>,
    /// What a step over the optimizer's own arenas runs.
    pub(super) prepared: Option<Arc<Prepared>>,
    pub(super) counts: Counts,
    /// Factor of the gradients.
    pub(super) grad_scale: f64,
    /// What those of a micro-batch count.
    pub(super) weight: f32,
    pub(super) submissions: Submissions,
    /// Whether averages are in the place of the parameters.
    pub(super) evaluating: bool,
    pub(super) mailbox: Mailbox,
    /// Skipped steps that were reported as errors.
    pub(super) reported: Arc<AtomicU32>,
}

/// What selection did to a tensor in the last step that ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selected {
    /// K = ⌊τ d⌋ under `mgup`, 0 under other policies.
    pub k: u64,
    /// Number of coordinates that were selected (`mgup`) or had a positive score (`cautious`); 0 under other policies.
    pub count: u64,
    /// Number of candidates: coordinates in the *bracket*, the range of scores around the K-th largest that a sample gives. Only they
    /// are ranked. 0 except under exact `mgup` on more than 4,096 coordinates.
    pub candidates: u64,
    /// Whether the bracket did not hold the K-th largest score, or held more candidates than there is room for. Full histograms then
    /// find the score: the step is correct, but slower.
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

/// What the host counts about an optimizer.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Steps that each tensor was part of, those included that the GPU skipped.
    pub(super) steps: Vec<u64>,
    /// Steps that were recorded: the place in the schedules of learning rates.
    pub(super) recorded: u64,
    /// Micro-batches that were recorded since the last step, and the sum of their weights.
    pub(super) micro_batches: u32,
    pub(super) weights: f64,
    /// The weight that the GPU has when all that was recorded is submitted; `None` where that is not known.
    pub(super) recorded_weight: Option<f32>,
    /// Whether gradients of a tensor are added up that no step has taken.
    pub(super) has_sum: Vec<bool>,
    /// Calls that had recorded something when these counts were taken.
    pub(super) submissions: u64,
}

/// What a call runs, with its bind groups.
pub(super) struct Prepared {
    pub work: Work,
    pub groups: Vec<wgpu::BindGroup>,
    /// The bind group of no buffers.
    pub none: wgpu::BindGroup,
    /// For each spec, the scalars that its chunks count on. Empty if these are the plan's own.
    pub scalars_of: Vec<u32>,
}

impl GpuOptimizer {
    /// Builds an optimizer that holds parameters and gradients in its own buffers. Both are zero at first. Fill them with
    /// [`write_param`](Self::write_param) and [`write_grad`](Self::write_grad), or in your own kernels bind the slices that
    /// [`param`](Self::param) and [`grad`](Self::grad) return.
    ///
    /// # Errors
    /// - [`Error::Recipe`], [`Error::Tensor`], [`Error::Group`], [`Error::Empty`] or [`Error::TooMany`] for recipes, settings or specs that
    ///   are not valid.
    /// - [`Error::Unsupported`] or [`Error::MissingFeature`] if the device lacks limits or a feature.
    /// - [`Error::OutOfMemory`], [`Error::DeviceLost`] or [`Error::Gpu`] if wgpu cannot make buffers or pipelines.
    pub async fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self> {
        Self::build(device, queue, specs, groups.into(), Ownership::Arenas, None).await
    }

    /// Builds an optimizer that holds only state. You pass parameters and gradients to [`record_with`](Self::record_with) in each step.
    /// They may lie in other buffers each time.
    ///
    /// ```no_run
    /// # async fn example(device: &wgpu_optim::wgpu::Device, queue: &wgpu_optim::wgpu::Queue, weight: &wgpu_optim::wgpu::Buffer, grad: &wgpu_optim::wgpu::Buffer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{GpuOptimizer, Recipe, TensorBuffers, TensorSlice, TensorSpec};
    /// let specs = [TensorSpec::new("weight", [256, 64])];
    /// let mut optimizer = GpuOptimizer::for_buffers(device, queue, &specs, Recipe::adamw(1e-3).mgup()).await?;
    /// optimizer.step_with(&[TensorBuffers::new(TensorSlice::whole(weight), TensorSlice::whole(grad))])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub async fn for_buffers(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self> {
        Self::build(device, queue, specs, groups.into(), Ownership::Caller, None).await
    }

    /// Builds an optimizer that holds neither parameters nor state, only scratch memory. You pass parameters, gradients and state to
    /// [`record_with`](Self::record_with) in each step. State begins at zero. Set the number of steps that it has seen with
    /// [`set_steps`](Self::set_steps).
    ///
    /// ```no_run
    /// # async fn example(device: &wgpu_optim::wgpu::Device, queue: &wgpu_optim::wgpu::Queue, [param, grad, momentum]: [&wgpu_optim::wgpu::Buffer; 3]) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{GpuOptimizer, Recipe, TensorBuffers, TensorSlice, TensorSpec};
    /// let mut optimizer = GpuOptimizer::stateless(device, queue, &[TensorSpec::new("w", [64])], Recipe::lion(1e-4)).await?;
    /// let [param, grad, momentum] = [param, grad, momentum].map(TensorSlice::whole);
    /// optimizer.set_steps(10); // that `momentum` has seen
    /// optimizer.step_with(&[TensorBuffers::new(param, grad).with_state(&[momentum])])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`new`](Self::new); [`Error::Ownership`] for settings that need state: micro-batches, skipped steps, f16 and bf16.
    pub async fn stateless(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<Self> {
        Self::build(device, queue, specs, groups.into(), Ownership::Stateless, None).await
    }

    /// Builds another optimizer on the same device for other tensors or groups, with the same split between its buffers and yours. It
    /// shares the compiled pipelines. The future does not borrow this optimizer, so you can go on stepping it.
    ///
    /// ```no_run
    /// # async fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// use wgpu_optim::{Recipe, TensorSpec};
    /// let head = optimizer.sibling(&[TensorSpec::new("head", [10, 64])], Recipe::adamw(1e-2)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn sibling<G: Into<ParamGroups>>(
        &self,
        specs: &[TensorSpec],
        groups: G,
    ) -> impl Future<Output = Result<Self>> + use<G> {
        let (device, queue, pipelines) = (self.device.clone(), self.queue.clone(), self.pipelines.clone());
        let (specs, groups, ownership) = (specs.to_vec(), groups.into(), self.plan.ownership);
        async move { Self::build(&device, &queue, &specs, groups, ownership, Some(pipelines)).await }
    }

    /// Frees its memory on the GPU as soon as the submitted work is done, even if clones of its buffers exist. Encoders that were recorded
    /// and not submitted become invalid. Dropping the optimizer instead frees only buffers without clones, in a browser at the next
    /// garbage collection.
    ///
    /// ```no_run
    /// # fn free(optimizer: wgpu_optim::GpuOptimizer) {
    /// optimizer.destroy();
    /// # }
    /// ```
    pub fn destroy(self) {
        self.buffers.iter().for_each(wgpu::Buffer::destroy);
        self.ring.buffer.destroy();
        self.probe.buffer().destroy();
    }

    /// What it costs: memory, and traffic and dispatches of a step.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// println!("{}", optimizer.cost()); // 12.6 MB of buffers; a step: 6 dispatches, 31.0 MB read and written
    /// # Ok(())
    /// # }
    /// ```
    pub fn cost(&self) -> Cost {
        Cost::of(&self.plan, &self.stages.traffic())
    }

    /// The tensors, in the order in which they were given.
    pub fn specs(&self) -> impl ExactSizeIterator<Item = &TensorSpec> {
        self.plan.order.iter().map(|&tensor| &self.plan.tensors[tensor].spec)
    }

    /// The recipe that steps a tensor, with its learning rate as it is now: that of its group, or the fallback of that recipe.
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// println!("{}", optimizer.recipe_of("norm.bias")?); // the fallback of Muon, perhaps
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn recipe_of(&self, name: &str) -> Result<Recipe> {
        Ok(self.groups.recipe_of(&self.plan.tensor(name)?.spec))
    }

    /// Sets the learning rate of all groups, from the next recorded step on.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.set_lr(1e-3)?;
    /// optimizer.set_group_lr(1, 1e-4)?;
    /// println!("{}", optimizer.lr(1)?); // times the factor of the schedule
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is negative or not finite.
    pub fn set_lr(&mut self, lr: f64) -> Result<()> {
        (0..self.groups.recipes().len()).try_for_each(|group| self.set_group_lr(group, lr))
    }

    /// Sets the learning rate of one group, and in proportion that of its fallback, from the next recorded step on.
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is negative or not finite, [`Error::UnknownGroup`] if there is no such group.
    pub fn set_group_lr(&mut self, group: usize, lr: f64) -> Result<()> {
        check("lr", lr, NOT_NEGATIVE)?;
        self.has_group(group)?;
        let recipe = self.initial[group].with_lr(lr);
        recipe.validate()?;
        self.groups.recipes[group] = recipe;
        Ok(())
    }

    /// Sets all hyper-parameters of a group, from the next recorded step on: weight decay, betas, momentum, ε, α, γ and the ratio τ.
    /// Checkpoints keep them, and [`resume`](Self::resume) restores them.
    ///
    /// A new ratio takes effect at the next submit: submit recorded steps first. Buffers keep the size for the first ratio, so a ratio
    /// closer to ½ may make more steps slower. No step is wrong.
    ///
    /// ```no_run
    /// # fn decay(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// let recipe = optimizer.groups().recipes()[0];
    /// optimizer.set_recipe(0, recipe.weight_decay(0.05))
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] for values out of range; [`Error::UnknownGroup`]; [`Error::Evaluating`] between [`evaluate`](Self::evaluate) and
    /// [`train`](Self::train); [`Error::Group`] for a recipe that needs other kernels or buffers: another base, policy, selection, `state`,
    /// number of Newton–Schulz iterations or scale; second moments per row, `amsgrad`, `centered`, a `power` or a momentum that begins or ends; a
    /// weight decay in the gradient that begins or ends. Nothing is changed then.
    pub fn set_recipe(&mut self, group: usize, recipe: impl Into<Recipe>) -> Result<()> {
        let recipe = recipe.into();
        self.trains()?;
        self.has_group(group)?;
        recipe.validate()?;
        let built = |recipe: Recipe, spec: &TensorSpec| {
            let (Recipe { base, policy, state }, numel) = (recipe.on(spec), spec.numel());
            let matrix = spec.matrix().zip(base.newton_schulz()).map(|(matrix, ns)| (ns.steps, base.rate(matrix)));
            (BaseKind::of(&base), PolicyKind::of(&policy, numel), state, matrix)
        };
        let old = self.initial[group];
        let mut own = self.plan.tensors.iter().map(|tensor| &tensor.spec).filter(|spec| spec.group == group);
        let fits = recipe.fallback().is_some() == old.fallback().is_some()
            && own.all(|spec| built(recipe, spec) == built(old, spec));
        let [was, is] = [old, recipe].map(|recipe| BaseKind::of(&recipe.base).row().name);
        let reason = || match was == is {
            true => {
                "the recipe changes policy, selection, fallback, `state`, `ns_steps` or `scale`; build a new optimizer"
                    .to_owned()
            }
            false => format!(
                "the recipe changes the base from {was} to {is}, which needs other kernels; build a new optimizer"
            ),
        };
        ensure!(fits, Error::Group { group, reason: reason() });
        recipe.base.warn();
        (self.initial[group], self.groups.recipes[group]) = (recipe, recipe);
        for tensor in self.plan.set_recipe(group, recipe) {
            let entry = self.plan.tensors[tensor].entry;
            self.write_entry(tensor, offset_of!(Tensor, k), &[entry.k]);
            self.write_entry(tensor, offset_of!(Tensor, rank_high), &[entry.rank_high, entry.rank_low]);
            self.write_entry(tensor, offset_of!(Tensor, capacity), &[entry.capacity]);
            self.write_entry(tensor, offset_of!(Tensor, list_capacity), &[entry.list_capacity]);
        }
        Ok(())
    }

    /// Sets the norm to which gradients are clipped, from the next recorded step on.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.set_max_grad_norm(0.5)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not positive and finite; [`Error::SettingOff`] if the optimizer was made without clipping.
    pub fn set_max_grad_norm(&mut self, max_norm: f64) -> Result<()> {
        check("max_grad_norm", max_norm, POSITIVE)?;
        self.clips()?;
        self.groups = self.groups.clone().with_max_grad_norm(max_norm);
        Ok(())
    }

    /// Sets the factor of the gradients, > 0 and finite, from the next recorded step on. It applies before limiting and clipping: 1/n
    /// undoes a loss that was multiplied by n. Costs nothing. 1 at first.
    ///
    /// ```no_run
    /// # fn example(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// optimizer.set_grad_scale(1.0 / 1024.0)?; // the loss was multiplied by 1024
    /// assert_eq!(optimizer.grad_scale() * 1024.0, 1.0);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not positive and finite.
    pub fn set_grad_scale(&mut self, scale: f64) -> Result<()> {
        check("grad_scale", scale, POSITIVE)?;
        let share = scale / f64::from(self.groups.accumulation());
        check("grad_scale over micro-batches", share, POSITIVE)?;
        self.grad_scale = scale;
        Ok(())
    }

    /// Sets the weight w of the next micro-batches, > 0 and finite, such as their number of samples. The gradient of a step is Σ w g / Σ w
    /// over its micro-batches. The weight stays until it is set again. 1 at first.
    ///
    /// ```no_run
    /// # fn two(optimizer: &mut wgpu_optim::GpuOptimizer) -> Result<(), wgpu_optim::Error> {
    /// // 32 samples, then the 17 that are left.
    /// for samples in [32.0, 17.0] {
    ///     optimizer.set_micro_batch_weight(samples)?;
    ///     // … the gradients of their mean loss …
    ///     optimizer.step()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Recipe`] if it is not positive and finite; [`Error::SettingOff`] without
    /// [accumulation](crate::ParamGroups::with_accumulation).
    pub fn set_micro_batch_weight(&mut self, weight: f64) -> Result<()> {
        check("micro_batch_weight", weight, POSITIVE)?;
        let (setting, advice) = ("`accumulation`", "set 2 or more micro-batches per step in its parameter groups");
        ensure!(self.plan.accumulates, Error::SettingOff { setting, advice });
        self.weight = weight as f32;
        Ok(())
    }

    /// The learning rate of a group in the next step: the one that was set, times the schedule's factor.
    ///
    /// # Errors
    /// [`Error::UnknownGroup`] if there is no such group, [`Error::Recipe`] if a schedule's function leaves its range.
    pub fn lr(&self, group: usize) -> Result<f64> {
        self.has_group(group)?;
        Ok(self.groups.scheduled(group, self.counts.recorded)?.lr())
    }

    /// Steps that were recorded: the place in the schedules of learning rates.
    pub fn recorded_steps(&self) -> u64 {
        self.counts.recorded
    }

    /// Sets the place in the schedules of learning rates, as when resuming.
    pub fn set_recorded_steps(&mut self, steps: u64) {
        self.counts.recorded = steps;
    }

    /// Re-reads the f32 masters from the f16 or bf16 parameters. Call it after changing the parameters yourself, and submit recorded steps
    /// first.
    ///
    /// If the optimizer holds the parameters, it submits the work at once. If your buffers hold them, the next step of each tensor
    /// re-reads its master, as the first step does. Does nothing at [`Precision::F32`](crate::Precision::F32).
    ///
    /// ```no_run
    /// # fn example(optimizer: &wgpu_optim::GpuOptimizer, weight: &[u8], queue: &wgpu_optim::wgpu::Queue) -> Result<(), wgpu_optim::Error> {
    /// let slice = optimizer.param("weight")?;
    /// queue.write_buffer(slice.buffer, slice.offset, weight);
    /// optimizer.forget_masters();
    /// # Ok(())
    /// # }
    /// ```
    pub fn forget_masters(&self) {
        self.set_mastered((0..self.plan.tensors.len()).map(|tensor| (tensor, false)));
        self.submit_own(When::Masters);
        self.clear_low();
    }

    /// Makes masters equal to their bf16 parameters, where only the lower halves are kept.
    pub(super) fn clear_low(&self) {
        if self.plan.splits {
            let mut encoder = self.encoder();
            self.storage.blocks.iter().for_each(|block| encoder.clear_buffer(&self.buffers[block.low], 0, None));
            self.queue.submit([encoder.finish()]);
        }
    }

    /// Says whether the masters of tensors hold their values, from the next submit on.
    pub(super) fn set_mastered(&self, mastered: impl Iterator<Item = (usize, bool)>) {
        for (tensor, is_mastered) in mastered.filter(|_| self.has_masters()) {
            self.write_entry(tensor, offset_of!(Tensor, mastered), &[u32::from(is_mastered)]);
        }
    }

    /// Says which steps began the averages of tensors, from the next submit on. `None` for averages that have not begun.
    pub(super) fn set_averaged(&self, begun: impl Iterator<Item = (usize, Option<u32>)>) {
        for (tensor, step) in begun.filter(|_| self.plan.average.is_some()) {
            self.write_entry(tensor, offset_of!(Tensor, averaged), &[step.unwrap_or(0)]);
        }
    }

    /// Whether parameters have masters.
    pub(super) fn has_masters(&self) -> bool {
        self.plan.has_masters()
    }

    /// The buffer of the tensors' table.
    pub(super) fn table(&self) -> &wgpu::Buffer {
        &self.buffers[self.storage.tensors]
    }

    /// Bytes of a tensor's entry in that table, from a member on.
    pub(super) fn entry(&self, tensor: usize, member: usize, size: u64) -> TensorSlice<'_> {
        self.slice_of(self.holder(tensor).entry(member, size))
    }

    /// Writes words of a tensor's entry, from a member on.
    pub(super) fn write_entry(&self, tensor: usize, member: usize, words: &[u32]) {
        let words = bytemuck::cast_slice(words);
        self.queue.write_buffer(self.table(), self.entry(tensor, member, 0).offset, words);
    }

    /// Micro-batches that were recorded since the last step.
    pub fn micro_batches(&self) -> u32 {
        self.counts.micro_batches
    }

    /// The factor of the gradients; see [`set_grad_scale`](Self::set_grad_scale).
    pub fn grad_scale(&self) -> f64 {
        self.grad_scale
    }

    fn has_group(&self, group: usize) -> Result<()> {
        let count = self.initial.len();
        ensure!(group < count, Error::UnknownGroup { group, count });
        Ok(())
    }

    /// Refuses a call that belongs to the other way of holding parameters.
    pub(super) fn has_arenas(&self, needed: bool, refusal: &'static str) -> Result<()> {
        ensure!((self.plan.ownership == Ownership::Arenas) == needed, Error::Ownership(refusal));
        Ok(())
    }

    /// Refuses a call that needs state, where the caller holds it.
    pub(super) fn has_state(&self) -> Result<()> {
        let held = "this optimizer was made with `stateless`: your buffers hold its state";
        ensure!(self.plan.ownership != Ownership::Stateless, Error::Ownership(held));
        Ok(())
    }

    pub(super) fn clips(&self) -> Result<()> {
        let (setting, advice) = ("`max_grad_norm`", "set it in its parameter groups to clip gradients");
        ensure!(self.groups.max_grad_norm().is_some(), Error::SettingOff { setting, advice });
        Ok(())
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
