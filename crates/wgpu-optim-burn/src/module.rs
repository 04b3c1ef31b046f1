//! [`GpuModuleOptimizer`]: steps all parameters of a Burn module in one submit.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use burn::backend::wgpu::CubeTensor;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};
use wgpu_optim::{GpuOptimizer, MatrixLayout, ParamGroups, Precision, Recipe, Selected, TensorBuffers, TensorSlice};

use crate::context::Context;
use crate::error::{Error, StepError};
use crate::gpu::Gpu;
use crate::groups::Select;
use crate::state::{Known, Loaded, Names, Places, base_of};
use crate::survey::{Survey, Visit};
use crate::tensor::{self, Range};

/// Steps a whole Burn module: every parameter and gradient is bound where Burn keeps it, and all of them go into one
/// submit.
///
/// A parameter is changed in place if nothing else holds it. While a clone of the model is alive, for example for
/// evaluation, the step fills new storage instead, and the clone keeps its values.
///
/// Parameters get state at their first gradient. Parameters without a gradient in a step, for example frozen ones, keep
/// their values and state. Two parameters of one id that share their storage are tied: the step moves both, and
/// the gradients of all their uses add up. If they do not share it, or one is a view of the other, only the first in the
/// module steps. Parameters of size 0 are left alone.
///
/// ```no_run
/// use burn::module::Module;
/// use burn::optim::GradientsParams;
/// use wgpu_optim::Recipe;
/// use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};
/// # use burn::tensor::Tensor;
/// # fn train<M: Module>(mut model: M, loss: impl Fn(&M) -> Tensor<1>) -> Result<(), Box<dyn std::error::Error>> {
///
/// let gpu = Gpu::open()?;
/// let mut optim = GpuModuleOptimizer::new(&gpu, Recipe::adamw(1e-3).mgup());
/// for _ in 0..100 {
///     let grads = GradientsParams::from_grads(loss(&model).backward(), &model);
///     model = optim.step(1e-3, model, grads);
/// }
/// # Ok(()) }
/// ```
pub struct GpuModuleOptimizer {
    pub(crate) gpu: Gpu,
    groups: Vec<(Option<Select>, Recipe)>,
    layouts: Vec<(Select, MatrixLayout)>,
    settings: Vec<Box<dyn Fn(ParamGroups) -> ParamGroups + Send + Sync>>,
    pub(crate) core: Option<Core>,
    /// State from a record, until its parameters step.
    pub(crate) loaded: Vec<Loaded>,
}

/// The optimizer below, once there are parameters.
pub(crate) struct Core {
    pub optimizer: GpuOptimizer,
    pub params: Vec<Known>,
    pub index: HashMap<ParamId, usize>,
}

/// A parameter with a gradient in this step.
struct Found {
    id: ParamId,
    path: String,
    shape: Vec<usize>,
    grad: CubeTensor,
}

/// A parameter's storage in this step.
struct Moving {
    /// What the step writes.
    target: CubeTensor,
    /// The storage before the step, if something else holds it too, as a tied parameter does.
    old: Option<CubeTensor>,
    context: Context,
    /// The `Tensor<D>` on that storage. Tied parameters share it: one leaf of the tape adds up the gradients of all their uses.
    tensor: Box<dyn Any>,
}

impl GpuModuleOptimizer {
    /// An optimizer for any module on this device, which steps all parameters by one recipe.
    ///
    /// You pass the learning rate to each step, as with Burn's optimizers. The recipe's own is only the base of
    /// proportions: of the fallback's rate, and of AdaGO's `min_step`.
    pub fn new(gpu: &Gpu, recipe: impl Into<Recipe>) -> Self {
        Self {
            gpu: gpu.clone(),
            groups: vec![(None, recipe.into())],
            layouts: Vec::new(),
            settings: Vec::new(),
            core: None,
            loaded: Vec::new(),
        }
    }

    /// Steps the chosen parameters by another recipe. If a parameter matches several groups, the last one added wins.
    ///
    /// ```
    /// use burn::module::ParamGroup;
    /// use wgpu_optim::{Recipe, base::AdamW};
    /// # use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};
    /// # fn optimizer(gpu: &Gpu) -> GpuModuleOptimizer {
    /// let decayed = AdamW::new(1e-3).betas([0.9, 0.95]).weight_decay(0.1);
    /// GpuModuleOptimizer::new(gpu, decayed).with_group(ParamGroup::from_predicate("bias"), decayed.weight_decay(0.0))
    /// # }
    /// ```
    ///
    /// # Panics
    /// If it is called after the first step, when parameters already have their groups.
    #[must_use]
    pub fn with_group(mut self, select: impl Into<Select>, recipe: impl Into<Recipe>) -> Self {
        assert!(self.core.is_none(), "call `with_group` before the first step");
        self.groups.push((Some(select.into()), recipe.into()));
        self
    }

    /// Sets how matrix bases read the chosen parameters as matrices. [`MatrixLayout::Fallback`] keeps embeddings and output
    /// heads from being orthogonalized. If a parameter matches several, the last one added wins. Other recipes ignore it.
    ///
    /// Default: parameters of rank 2 are matrices of (in, out), the default of Burn's `Linear`, and other ranks go to the
    /// fallback.
    ///
    /// # Panics
    /// If it is called after the first step.
    #[must_use]
    pub fn with_layout(mut self, select: impl Into<Select>, layout: MatrixLayout) -> Self {
        assert!(self.core.is_none(), "call `with_layout` before the first step");
        self.layouts.push((select.into(), layout));
        self
    }

    /// Clips the gradients of every step to a global norm, over all parameters and groups; see
    /// [`ParamGroups::with_max_grad_norm`]. `max_norm` is > 0 and finite. Burn's own clipping is per parameter.
    ///
    /// # Panics
    /// If it is called after the first step.
    #[must_use]
    pub fn with_max_grad_norm(self, max_norm: f64) -> Self {
        self.with_settings(move |groups| groups.with_max_grad_norm(max_norm))
    }

    /// Sets what all groups share, with the setters of [`ParamGroups`]: clipping, skipped steps, loss scaling, micro-batches,
    /// telemetry, the [`Precision`] of parameters and gradients, and schedules of hyper-parameters of custom bases. Schedules of the
    /// learning rate have no effect, because you pass the learning rate to each step.
    ///
    /// ```
    /// use wgpu_optim::{GradScaler, Precision, Recipe};
    /// # use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};
    /// # fn optimizer(gpu: &Gpu) -> GpuModuleOptimizer {
    /// GpuModuleOptimizer::new(gpu, Recipe::adamw(1e-3).mgup()).with_settings(|groups| {
    ///     groups.with_precision(Precision::F16).with_grad_scaler(GradScaler::default()).with_accumulation(4)
    /// })
    /// # }
    /// ```
    ///
    /// # Panics
    /// If it is called after the first step.
    #[must_use]
    pub fn with_settings(mut self, settings: impl Fn(ParamGroups) -> ParamGroups + Send + Sync + 'static) -> Self {
        assert!(self.core.is_none(), "call `with_settings` before the first step");
        self.settings.push(Box::new(settings));
        self
    }

    fn settings(&self, groups: ParamGroups) -> ParamGroups {
        self.settings.iter().fold(groups, |groups, setting| setting(groups))
    }

    /// Sets the hyper-parameters of a group from the next step on. Group 0 is the recipe of [`new`](Self::new); each
    /// [`with_group`](Self::with_group) has added one.
    ///
    /// ```no_run
    /// # fn decay(optim: &mut wgpu_optim_burn::GpuModuleOptimizer) -> Result<(), wgpu_optim_burn::Error> {
    /// optim.set_recipe(0, wgpu_optim::Recipe::adamw(1e-3).weight_decay(0.05).mgup())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`GpuOptimizer::set_recipe`]; before the first step, every valid recipe is accepted.
    pub fn set_recipe(&mut self, group: usize, recipe: impl Into<Recipe>) -> Result<(), Error> {
        let (recipe, count) = (recipe.into(), self.groups.len());
        recipe.validate()?;
        let known = self.groups.get_mut(group).ok_or(wgpu_optim::Error::UnknownGroup { group, count })?;
        if let Some(core) = &mut self.core {
            core.optimizer.set_recipe(group, recipe)?;
        }
        known.1 = recipe;
        Ok(())
    }

    /// How parameters and gradients are stored.
    pub(crate) fn precision(&self) -> Precision {
        self.settings(ParamGroups::default()).precision()
    }

    /// [`precision`](Self::precision) as a dtype of Burn.
    pub(crate) fn dtype(&self) -> DType {
        match self.precision() {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// The core optimizer, for telemetry, counts and what the guard found. `None` until a parameter has state.
    pub fn optimizer(&self) -> Option<&GpuOptimizer> {
        self.core.as_ref().map(|core| &core.optimizer)
    }

    /// The factor for the next loss, as an f32 tensor on the GPU: 1 without a [`GradScaler`](wgpu_optim::GradScaler). Does
    /// not wait for the GPU.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn loss_scale(&self) -> Result<Tensor<1>, Error> {
        let Some(core) = &self.core else {
            let scaler = self.settings(ParamGroups::default()).grad_scaler();
            let scale = scaler.map_or(1.0, |scaler| scaler.init as f32);
            return Ok(Tensor::from_data([scale], (&self.gpu.device, DType::F32)));
        };
        let tensor = tensor::exclusive(tensor::storage(Tensor::<1>::zeros([1], (&self.gpu.device, DType::F32))));
        self.gpu.guarded(|| {
            let place = Range::of(&tensor).map_err(Error::Device)?;
            let scale = core.optimizer.loss_scale();
            let mut encoder = self.gpu.encoder();
            encoder.copy_buffer_to_buffer(scale.buffer, scale.offset, &place.buffer, place.offset, 4);
            self.gpu.queue.submit([encoder.finish()]);
            Ok(())
        })?;
        Ok(tensor::wrap(tensor))
    }

    /// Takes one step and returns the module with its new parameters. `lr` is a number, or a [`ModuleLearningRate`] with one
    /// per Burn parameter group.
    ///
    /// # Panics
    /// With the error's message, where [`try_step`](Self::try_step) returns it.
    pub fn step<M: Module>(&mut self, lr: impl Into<ModuleLearningRate>, module: M, grads: GradientsParams) -> M {
        self.try_step(lr, module, grads)
            .unwrap_or_else(|refused| panic!("{}; `try_step` returns this error, and the module", refused.error))
    }

    /// [`step`](Self::step) that returns an error together with the unchanged module.
    ///
    /// # Errors
    /// If a gradient or parameter does not have the optimizer's dtype (F32 unless a precision is set), is on another device, or
    /// has changed its shape; if a recipe or learning rate is out of range; if the device is lost or out of memory.
    pub fn try_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        module: M,
        grads: GradientsParams,
    ) -> Result<M, StepError<M>> {
        let refused = |(module, error)| StepError { model: module, error };
        if let Err(error) = self.gpu.check() {
            return Err(refused((module, error)));
        }
        let dtype = self.dtype();
        let gradients = Gradients { gpu: &self.gpu, dtype, grads, found: Vec::new() };
        let found = match Survey::of(&module, gradients) {
            Ok(Gradients { found, .. }) if found.is_empty() => return Ok(module),
            Ok(Gradients { found, .. }) => found,
            Err(error) => return Err(refused((module, error))),
        };
        if let Err(error) = self.know(&found) {
            return Err(refused((module, error)));
        }
        let wanted = found.iter().map(|found| found.id).collect();
        let mut exchange = Exchange { gpu: &self.gpu, dtype, wanted, moving: HashMap::new() };
        let module = module.map(&mut exchange);
        match self.submit(&lr.into(), &found, &exchange.moving) {
            Ok(()) => Ok(module),
            // New storage has the old values until a step is submitted.
            Err(error) => Err(refused((module, error))),
        }
    }

    /// Replaces parameters by their averages, for evaluation, and returns the module: all of them with
    /// [`ParamGroups::with_average`](wgpu_optim::ParamGroups::with_average), otherwise those of schedule-free bases. Steps and records are
    /// refused until [`train`](Self::train), which must get the returned module: in a clone from before, the parameters are not averages.
    ///
    /// ```no_run
    /// # use burn::module::Module;
    /// # fn validate<M: Module>(optim: &mut wgpu_optim_burn::GpuModuleOptimizer, mut model: M, loss: impl Fn(&M) -> f64) -> M {
    /// model = optim.evaluate(model).unwrap();
    /// println!("{}", loss(&model));
    /// optim.train(model).unwrap()
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`try_step`](Self::try_step), with the unchanged module; and if a parameter that has an average is not in it.
    pub fn evaluate<M: Module>(&mut self, module: M) -> Result<M, StepError<M>> {
        self.switch(module, true)
    }

    /// Brings back the parameters that [`evaluate`](Self::evaluate) has replaced, so that training can continue, and returns
    /// the module.
    ///
    /// # Errors
    /// As for [`evaluate`](Self::evaluate).
    pub fn train<M: Module>(&mut self, module: M) -> Result<M, StepError<M>> {
        self.switch(module, false)
    }

    fn switch<M: Module>(&mut self, module: M, to_averages: bool) -> Result<M, StepError<M>> {
        let Some(core) = self.core.as_ref().filter(|core| core.optimizer.is_evaluating() != to_averages) else {
            return Ok(module);
        };
        let dtype = self.dtype();
        // Other parameters stay where they are.
        let all = core.optimizer.groups().average().is_some();
        let is_averaged = |known: &&Known| all || base_of(&core.optimizer, known).is_ok_and(|base| base.row().averages);
        let averaged: Vec<Known> = core.params.iter().filter(is_averaged).cloned().collect();
        let wanted: HashSet<_> = averaged.iter().map(|known| known.id).collect();
        let largest = averaged.iter().map(|known| known.shape.iter().product::<usize>()).max().unwrap_or(1);
        // All or none: what `evaluate` leaves out, `train` would move.
        let present = Present { gpu: &self.gpu, dtype, wanted: &wanted, found: HashSet::new() };
        let missing = match Survey::of(&module, present) {
            Ok(present) => averaged.iter().find(|known| !present.found.contains(&known.id)),
            Err(error) => return Err(StepError { model: module, error }),
        };
        if let Some(missing) = missing {
            let error = Error::parameter(&missing.path, "it was stepped and is not in the module".to_owned());
            return Err(StepError { model: module, error });
        }
        let mut exchange = Exchange { gpu: &self.gpu, dtype, wanted, moving: HashMap::new() };
        let module = module.map(&mut exchange);
        let moving = exchange.moving;
        // `TensorBuffers` needs a gradient, which is not used here.
        let unused = tensor::storage(Tensor::<1>::zeros([largest], (&self.gpu.device, dtype)));
        let core = self.core.as_mut().expect("it is there");
        let switched = self.gpu.guarded(|| {
            let all: Vec<_> = averaged.iter().map(|known| &moving[&known.id].target).chain([&unused]).collect();
            let mut places = Range::all(&all).map_err(|(_, reason)| Error::Device(reason))?;
            let last = places.pop().expect("a range for each tensor");
            let unused = last.slice();
            let bytes = core.optimizer.groups().precision().bytes();
            let mut buffers = vec![None; core.params.len()];
            for (known, place) in averaged.iter().zip(&places) {
                let size = (bytes * known.shape.iter().product::<usize>() as u64).next_multiple_of(4);
                let given = TensorBuffers::new(place.slice(), TensorSlice { size, ..unused });
                buffers[core.index[&known.id]] = Some(given);
            }
            match to_averages {
                true => core.optimizer.evaluate_with(&buffers)?,
                false => core.optimizer.train_with(&buffers)?,
            }
            Ok(())
        });
        match switched {
            Ok(()) => Ok(module),
            Err(error) => Err(StepError { model: module, error }),
        }
    }

    /// The norm of all gradients of the last step, before clipping. Waits for the GPU.
    ///
    /// # Errors
    /// Before the first step, if the optimizer does not clip, or if the norm cannot be read.
    pub fn grad_norm(&self) -> Result<f32, Error> {
        match &self.core {
            Some(core) => Ok(core.optimizer.read_grad_norm_blocking()?),
            None => Err(Error::NoStep("no step was taken yet: call `step` first")),
        }
    }

    /// What selection did to every parameter in the last step, by path. Waits for the GPU, one read per parameter.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn selected(&self) -> Result<Vec<(String, Selected)>, Error> {
        let Some(core) = &self.core else { return Ok(Vec::new()) };
        let read = |known: &Known| Ok((known.path.clone(), core.optimizer.read_selected_blocking(&known.name)?));
        core.params.iter().map(read).collect()
    }

    /// Sees to it that every parameter of this step has state.
    fn know(&mut self, found: &[Found]) -> Result<(), Error> {
        let known = self.core.as_ref();
        let mut fresh = Vec::new();
        for found in found {
            match known.and_then(|core| Some(&core.params[*core.index.get(&found.id)?])) {
                Some(known) if known.shape == found.shape => {}
                Some(known) => return Err(known.reshaped(&found.path, &found.shape)),
                None => fresh.push(found),
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let mut params = known.map_or_else(Vec::new, |core| core.params.clone());
        let mut names = Names::of(&params);
        for found in fresh {
            let name = names.add(found.id, &found.path);
            params.push(self.known(found.id, &found.path, &found.shape, name));
        }
        let built = self.build(known, &self.loaded, params)?;
        self.take(built);
        Ok(())
    }

    /// Goes on with what was built. Only now, as nothing can refuse any more, what it took from a record is dropped.
    pub(crate) fn take(&mut self, (core, applied): (Core, HashSet<usize>)) {
        let mut at = 0..;
        self.loaded.retain(|_| !at.next().is_some_and(|at| applied.contains(&at)));
        self.core = Some(core);
    }

    /// The optimizer below for these parameters, with the state of those that `before` has, or a record; and which states
    /// of the record it took.
    pub(crate) fn build(
        &self,
        before: Option<&Core>,
        loaded: &[Loaded],
        params: Vec<Known>,
    ) -> Result<(Core, HashSet<usize>), Error> {
        let groups: Vec<_> = self.groups.iter().map(|group| group.1).collect();
        // Parameters join as they get gradients, matrices perhaps later than others.
        let groups = self.settings(ParamGroups::from(groups).allow_no_matrices());
        let specs: Vec<_> = params.iter().map(Known::spec).collect();
        let mut optimizer = match before {
            // With all that it knows already.
            Some(core) => core.optimizer.resized_blocking(&specs, &[])?,
            None => {
                let (device, queue) = (&self.gpu.wgpu_device, &self.gpu.queue);
                GpuOptimizer::for_buffers_blocking(device, queue, &specs, groups)?
            }
        };
        let places = Places::of(loaded);
        let mut applied = HashSet::new();
        for known in &params {
            if let Some(at) = places.find(known.id, &known.path) {
                loaded[at].apply(&mut optimizer, known)?;
                applied.insert(at);
            }
        }
        let index = params.iter().enumerate().map(|(i, p)| (p.id, i)).collect();
        Ok((Core { optimizer, params, index }, applied))
    }

    /// A parameter with its group and layout.
    pub(crate) fn known(&self, id: ParamId, path: &str, shape: &[usize], name: String) -> Known {
        Known {
            id,
            path: path.to_owned(),
            name,
            shape: shape.to_vec(),
            group: self.group_of(id, path, shape.len()),
            layout: self.layout_of(id, path, shape.len()),
        }
    }

    fn group_of(&self, id: ParamId, path: &str, rank: usize) -> usize {
        let matches = |(select, _): &(Option<Select>, Recipe)| {
            select.as_ref().is_none_or(|select| select.matches(id, path, rank))
        };
        // The first group matches everything.
        self.groups.iter().rposition(matches).unwrap_or(0)
    }

    fn layout_of(&self, id: ParamId, path: &str, rank: usize) -> MatrixLayout {
        let matching = self.layouts.iter().rev().find(|(select, _)| select.matches(id, path, rank));
        matching.map_or(MatrixLayout::InOut, |(_, layout)| *layout)
    }

    /// Records the step over the storage as it lies now, and submits it.
    fn submit(
        &mut self,
        lr: &ModuleLearningRate,
        found: &[Found],
        moving: &HashMap<ParamId, Moving>,
    ) -> Result<(), Error> {
        let core = self.core.as_mut().expect("`know` comes first");
        let before = core.optimizer.counts();
        let result = self.gpu.guarded(|| {
            let tensors: Vec<_> = found.iter().flat_map(|found| [&moving[&found.id].target, &found.grad]).collect();
            let places = Range::all(&tensors).map_err(|(at, reason)| Error::parameter(&found[at / 2].path, reason))?;
            let mut buffers = vec![None; core.params.len()];
            for (found, places) in found.iter().zip(places.chunks_exact(2)) {
                let lr = lr.lr_from_param(found.id, Some(&found.path));
                let given = TensorBuffers::new(places[0].slice(), places[1].slice()).with_lr(lr);
                buffers[core.index[&found.id]] = Some(given);
            }
            let mut encoder = self.gpu.encoder();
            core.optimizer.record_with(&mut encoder, &buffers)?;
            self.gpu.queue.submit([encoder.finish()]);
            Ok(())
        });
        if result.is_err() {
            // A refused step does not count.
            core.optimizer.rewind(before);
        }
        result
    }
}

impl Moving {
    /// Whether `tensor` lay where this parameter lay before the step.
    fn shares(&self, tensor: &CubeTensor) -> bool {
        self.old.as_ref().is_some_and(|old| tensor::same_storage(old, tensor))
    }
}

/// Finds the parameters that have a gradient, and brings the gradients into row-major order.
struct Gradients<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    grads: GradientsParams,
    found: Vec<Found>,
}

impl Visit for Gradients<'_> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &[String]) -> Result<(), Error> {
        // The second visit to a tied parameter finds no gradient: the first has taken it.
        let Some(grad) = self.grads.remove::<D>(param.id) else { return Ok(()) };
        let (path, shape) = (path.join("."), param.lazy_shape());
        let grad = if grad.shape() == shape {
            tensor::check(&param.base(), &self.gpu.device, self.dtype)
                .and_then(|()| tensor::resolve(grad.inner(), &self.gpu.device, self.dtype))
        } else {
            Err(format!("its shape is {:?}, but its gradient's is {:?}", shape.to_vec(), grad.shape().to_vec()))
        };
        let grad = tensor::dense(grad.map_err(|reason| Error::parameter(&path, reason))?);
        self.found.push(Found { id: param.id, path, shape: shape.to_vec(), grad });
        Ok(())
    }
}

/// Finds parameters of these ids.
struct Present<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    wanted: &'a HashSet<ParamId>,
    found: HashSet<ParamId>,
}

impl Visit for Present<'_> {
    fn visit<const D: usize>(&mut self, param: &Param<Tensor<D>>, path: &[String]) -> Result<(), Error> {
        if self.wanted.contains(&param.id) {
            tensor::check(&param.base(), &self.gpu.device, self.dtype)
                .map_err(|reason| Error::parameter(&path.join("."), reason))?;
            self.found.insert(param.id);
        }
        Ok(())
    }
}

/// Gives every parameter of the step the storage that the step writes.
struct Exchange<'a> {
    gpu: &'a Gpu,
    dtype: DType,
    wanted: HashSet<ParamId>,
    moving: HashMap<ParamId, Moving>,
}

impl ModuleMapper for Exchange<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !self.wanted.contains(&param.id) || tensor::check(&param.base(), &self.gpu.device, self.dtype).is_err() {
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let context = Context::capture(&tensor);
        let found = tensor::storage(tensor.inner());
        let tensor = match self.moving.get(&id) {
            None => {
                let old = (!found.handle.can_mut()).then(|| found.clone());
                let target = tensor::exclusive(found);
                let tensor = context.clone().restore(tensor::wrap::<D>(target.clone()), id);
                self.moving.insert(id, Moving { old, target, context, tensor: Box::new(tensor.clone()) });
                tensor
            }
            Some(first) if first.context == context && first.shares(&found) => {
                first.tensor.downcast_ref::<Tensor<D>>().expect("they have one shape").clone()
            }
            Some(first) if first.context.require_grad == context.require_grad && first.shares(&found) => {
                context.restore(tensor::wrap(first.target.clone()), id)
            }
            Some(_) => context.restore(tensor::wrap(found), id),
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::OnceLock;

    use burn::module::Module;
    use wgpu_optim::wgpu;

    use super::*;

    pub(crate) fn gpu() -> &'static Gpu {
        static GPU: OnceLock<Gpu> = OnceLock::new();
        GPU.get_or_init(|| Gpu::open().unwrap())
    }

    #[derive(Module, Debug)]
    struct Two {
        first: Param<Tensor<1>>,
        second: Param<Tensor<1>>,
    }

    impl Two {
        fn new() -> Self {
            let device = gpu().device.clone().autodiff();
            let ones = |n: usize| Param::from_tensor(Tensor::ones([n], &device));
            Self { first: ones(1000), second: ones(50) }
        }

        fn gradients(&self) -> GradientsParams {
            let mut grads = GradientsParams::new();
            for param in [&self.first, &self.second] {
                grads.register(param.id, Tensor::<1>::ones(param.shape(), &gpu().device));
            }
            grads
        }

        /// Where the parameters lie: buffer and offset.
        fn places(&self) -> [(wgpu::Buffer, u64); 2] {
            [&self.first, &self.second].map(|param| {
                let range = Range::of(&tensor::storage(param.val().inner())).unwrap();
                (range.buffer.clone(), range.offset)
            })
        }
    }

    #[test]
    fn a_step_stays_in_place_unless_a_clone_is_alive() {
        let mut model = Two::new();
        let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3));
        for keep in [false, true, false, true] {
            let before = model.places();
            let clone = keep.then(|| model.clone());
            let grads = model.gradients();
            model = optim.step(1e-3, model, grads);
            assert_eq!(model.places() == before, !keep);
            drop(clone);
        }
    }

    #[test]
    fn tensors_share_buffers_and_dispatches() {
        let model = Two::new();
        let [first, second] = model.places();
        assert_eq!(first.0, second.0, "Burn packs small tensors into one buffer");
        assert_ne!(first.1, second.1);
    }
}
