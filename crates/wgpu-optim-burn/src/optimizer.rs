//! [`RecipeOptimizer`]: a recipe as one of Burn's own optimizers, a parameter at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{
    AdamWState, AdaptiveMomentumState, LearningRate, LionState, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::DType;
use burn::tensor::{Device, Tensor};
use wgpu_optim::base::BaseKind;
use wgpu_optim::{Base, GpuOptimizer, MatrixLayout, Recipe, TensorBuffers, TensorSlice, TensorSpec};

use crate::error::Error;
use crate::gpu::Gpu;
use crate::state::is_of_burn;
use crate::tensor::{self, Range};

/// Implements Burn's [`Optimizer`] for a recipe. Use it with what steps one parameter at a time: `ModuleOptimizer` with
/// its groups and records, and burn-train's `Learner`.
///
/// ```no_run
/// use burn::optim::ModuleOptimizer;
/// use wgpu_optim::Recipe;
/// use wgpu_optim_burn::{Gpu, RecipeOptimizer};
///
/// let gpu = Gpu::open()?;
/// let optim = ModuleOptimizer::from(RecipeOptimizer::new(&gpu, Recipe::adamw(1e-3).mgup()));
/// # Ok::<(), wgpu_optim_burn::Error>(())
/// ```
///
/// State lies in Burn tensors, and in records under the names that Burn's `AdamW` and `Lion` use, so each can load the
/// other's records. Each parameter takes one submit. In your own training loop,
/// [`GpuModuleOptimizer`](crate::GpuModuleOptimizer) is faster.
///
/// Burn's trait cannot return an error, so a refused step panics with the message.
#[derive(Clone)]
pub struct RecipeOptimizer {
    gpu: Gpu,
    recipe: Recipe,
    /// What the kernels of a step need in addition to tensors, for each size that has occurred, or shape of a matrix base; clones
    /// share it.
    sizes: Arc<Mutex<HashMap<Vec<usize>, GpuOptimizer>>>,
    layout: MatrixLayout,
}

/// The state of one parameter. AdamW and Lion have the state of Burn's optimizers.
#[derive(Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // Burn boxes it
pub enum RecipeState<const D: usize> {
    /// m, v and the number of steps.
    AdamW(AdamWState<D>),
    /// m, and the number of steps, which Burn's own does not count.
    Lion(LionState<D>, usize),
    /// The states of another base in the order of its row, first those per coordinate, then those per tensor, and the number of steps.
    Other(BaseKind, Vec<Tensor<D>>, Vec<Tensor<1>>, usize),
}

impl<const D: usize> RecordState for RecipeState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::AdamW(state) => state.state_flatten(prefix, out),
            Self::Lion(state, steps) => {
                state.state_flatten(prefix, out);
                out.push_scalar(prefix, "step", (*steps).into());
            }
            Self::Other(base, states, scalars, steps) => {
                let states = states.iter().map(Tensor::to_data).chain(scalars.iter().map(Tensor::to_data));
                for (row, data) in base.row().states.iter().zip(states) {
                    out.push_tensor(prefix, row.name, data);
                }
                out.push_scalar(prefix, "step", (*steps).into());
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        if src.has_under(&burn::optim::join_path(prefix, "momentum")) {
            return AdamWState::state_unflatten(prefix, src, device).map(Self::AdamW);
        }
        let steps = src.take_scalar(prefix, "step").and_then(|steps| usize::try_from(steps).ok());
        let bases = || BaseKind::all().filter(|base| !is_of_burn(*base));
        let names = bases().flat_map(|base| base.row().states).map(|row| row.name);
        let mut found: BTreeMap<_, _> = names.filter_map(|name| Some((name, src.take_tensor(prefix, name)?))).collect();
        if !found.is_empty() {
            let has_all = |base: &BaseKind| base.row().states.iter().all(|row| found.contains_key(row.name));
            let base = bases().filter(has_all).max_by_key(|base| base.row().states.len())?;
            let mut take = |name| found.remove(name);
            let states = base.state_names().map(|name| Some(Tensor::from_data(take(name)?, device)));
            let states = states.collect::<Option<_>>()?;
            let scalars = base.scalar_names().map(|name| Some(Tensor::from_data(take(name)?, device)));
            return Some(Self::Other(base, states, scalars.collect::<Option<_>>()?, steps?));
        }
        LionState::state_unflatten(prefix, src, device).map(|state| Self::Lion(state, steps.unwrap_or(1)))
    }
}

impl RecipeOptimizer {
    /// An optimizer for parameters on this device. You pass the learning rate to each step. The recipe's own is only
    /// the base of proportions: of the fallback's rate, and of AdaGO's `min_step`.
    pub fn new(gpu: &Gpu, recipe: impl Into<Recipe>) -> Self {
        Self { gpu: gpu.clone(), recipe: recipe.into(), sizes: Arc::default(), layout: MatrixLayout::InOut }
    }

    /// Sets how Muon and AdaGO read parameters as matrices. Default: rank 2 is a matrix of (in, out), the default of Burn's
    /// `Linear`, and other ranks go to the fallback.
    #[must_use]
    pub fn with_layout(self, layout: MatrixLayout) -> Self {
        Self { layout, sizes: Arc::default(), ..self }
    }

    fn try_step<const D: usize>(
        &self,
        lr: LearningRate,
        param: Tensor<D>,
        grad: Tensor<D>,
        state: Option<RecipeState<D>>,
    ) -> Result<(Tensor<D>, Option<RecipeState<D>>), Error> {
        let numel = param.shape().num_elements();
        if numel == 0 {
            return Ok((param, state));
        }
        self.gpu.check()?;
        // Burn does not say which parameter it is.
        let name = format!("of shape {:?}", param.dims());
        let failed = |reason| Error::parameter(&name, reason);
        if grad.shape() != param.shape() {
            return Err(failed(format!("its gradient has shape {:?}", grad.dims())));
        }
        let spec = TensorSpec::new("parameter", param.dims()).with_layout(self.layout);
        let recipe = self.recipe.with_lr(lr);
        let (recipe, spec) = match (recipe.fallback(), spec.matrix()) {
            (Some(_), Some(_)) => (recipe, spec),
            (fallback, _) => (fallback.unwrap_or(recipe), TensorSpec::new("parameter", [numel])),
        };
        let (steps, moments, scalars) = moments(&recipe.base, state, &param).map_err(failed)?;
        let all = [vec![param.clone(), grad], moments].concat();
        drop(param);
        let mut storage = Vec::new();
        for tensor in all {
            storage.push(tensor::resolve(tensor, &self.gpu.device, DType::F32).map_err(failed)?);
        }
        let grad = tensor::dense(storage.remove(1));
        let scalar_count = scalars.len();
        for tensor in scalars {
            storage.push(tensor::resolve(tensor, &self.gpu.device, DType::F32).map_err(failed)?);
        }
        let targets: Vec<_> = storage.into_iter().map(tensor::exclusive).collect();

        let all: Vec<_> = targets.iter().chain([&grad]).collect();
        let mut places = Range::all(&all).map_err(|(_, reason)| failed(reason))?;
        let grad = places.pop().expect("a range for each tensor");
        let mut slices: Vec<_> = places[1..].iter().map(Range::slice).collect();
        // States per tensor are one number, at the beginning of their storage.
        for slice in slices.iter_mut().rev().take(scalar_count) {
            *slice = TensorSlice { size: 4, ..*slice };
        }
        let buffers = TensorBuffers::new(places[0].slice(), grad.slice()).with_state(&slices).with_lr(recipe.lr());

        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let shape = spec.shape.clone();
        if !sizes.contains_key(&shape) {
            let made = match sizes.values().next() {
                Some(other) => other.sibling_blocking(&[spec], recipe)?,
                None => {
                    let (device, queue) = (&self.gpu.wgpu_device, &self.gpu.queue);
                    GpuOptimizer::stateless_blocking(device, queue, &[spec], recipe)?
                }
            };
            sizes.insert(shape.clone(), made);
        }
        let optimizer = sizes.get_mut(&shape).expect("inserted if it was absent");
        let mut encoder = self.gpu.encoder();
        optimizer.set_steps(steps as u64);
        optimizer.record_with(&mut encoder, &[buffers])?;
        self.gpu.queue.submit([encoder.finish()]);
        drop(sizes);

        let mut targets = targets.into_iter();
        let mut next = || targets.next().expect("a target for each tensor");
        let (param, steps) = (tensor::wrap(next()), steps + 1);
        let state = match recipe.base {
            Base::Adamw(_) => {
                let (m, v) = (tensor::wrap(next()), tensor::wrap(next()));
                RecipeState::AdamW(AdamWState::new(AdaptiveMomentumState::new(steps, m, v)))
            }
            Base::Lion(_) => RecipeState::Lion(LionState::new(tensor::wrap(next())), steps),
            base => {
                let base = BaseKind::of(&base);
                let states = base.state_names().map(|_| tensor::wrap(next())).collect();
                let scalars = base.scalar_names().map(|_| tensor::wrap(next())).collect();
                RecipeState::Other(base, states, scalars, steps)
            }
        };
        Ok((param, Some(state)))
    }
}

/// The steps that the state has seen, its tensors, and its states per tensor. Zeros before the first step.
type Moments<const D: usize> = (usize, Vec<Tensor<D>>, Vec<Tensor<1>>);

fn moments<const D: usize>(
    base: &Base,
    state: Option<RecipeState<D>>,
    param: &Tensor<D>,
) -> Result<Moments<D>, String> {
    let device = param.device();
    let kind = BaseKind::of(base);
    let (steps, moments, scalars) = match (base, state) {
        (_, None) => {
            let states = kind.state_names().map(|_| Tensor::zeros(param.shape(), &device));
            (0, states.collect(), kind.scalar_names().map(|_| Tensor::zeros([1], &device)).collect())
        }
        (Base::Adamw(_), Some(RecipeState::AdamW(AdamWState { momentum }))) => {
            if momentum.max_moment_2.is_some() {
                return Err("its record is of AMSGrad, which no recipe supports; load one of plain AdamW".to_owned());
            }
            (momentum.time, vec![momentum.moment_1, momentum.moment_2], Vec::new())
        }
        (Base::Lion(_), Some(RecipeState::Lion(LionState { momentum }, steps))) => (steps, vec![momentum], Vec::new()),
        (_, Some(RecipeState::Other(base, states, scalars, steps))) if base == kind => (steps, states, scalars),
        (_, Some(state)) => {
            let recipe = kind.row().name;
            return Err(format!("its record is of {}, but the recipe is of {recipe}", state.base()));
        }
    };
    match moments.iter().find(|moment| moment.shape() != param.shape()) {
        Some(moment) => Err(format!("its state has shape {:?}", moment.dims())),
        None => Ok((steps, moments, scalars)),
    }
}

impl<const D: usize> RecipeState<D> {
    /// The base that it is of.
    fn base(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Lion(..) => "lion",
            Self::Other(base, ..) => base.row().name,
        }
    }
}

impl Optimizer for RecipeOptimizer {
    type State<const D: usize> = RecipeState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        self.try_step(lr, tensor, grad, state).unwrap_or_else(|error| panic!("{error}"))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        match state {
            RecipeState::AdamW(mut state) => {
                state.momentum = state.momentum.to_device(device);
                RecipeState::AdamW(state)
            }
            RecipeState::Lion(mut state, steps) => {
                state.momentum = state.momentum.to_device(device);
                RecipeState::Lion(state, steps)
            }
            RecipeState::Other(base, states, scalars, steps) => RecipeState::Other(
                base,
                states.into_iter().map(|state| state.to_device(device)).collect(),
                scalars.into_iter().map(|scalar| scalar.to_device(device)).collect(),
                steps,
            ),
        }
    }
}
