//! [`RecipeOptimizer`]: a recipe as one of Burn's own optimizers, a parameter at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{
    AdamWState, AdaptiveMomentumState, LearningRate, LionState, Optimizer, RecordState, StateSink,
    StateSource,
};
use burn::tensor::{Device, Tensor};
use wgpu_optim::{Base, GpuOptimizer, Recipe, TensorBuffers, TensorSpec};

use crate::error::Error;
use crate::gpu::Gpu;
use crate::tensor::{self, Range};

/// A recipe behind Burn's [`Optimizer`], for what steps a parameter at a time: `ModuleOptimizer` with its groups and
/// records, and burn-train's `Learner`.
///
/// ```no_run
/// use burn::optim::ModuleOptimizer;
/// use wgpu_optim::Recipe;
/// use wgpu_optim_burn::{Gpu, RecipeOptimizer};
///
/// let gpu = Gpu::open()?;
/// let optim = ModuleOptimizer::from(RecipeOptimizer::new(&gpu, Recipe::mgup_adamw(1e-3)));
/// # Ok::<(), wgpu_optim_burn::Error>(())
/// ```
///
/// State is Burn's: tensors beside the parameters, in records under the names of Burn's `AdamW` and `Lion`, which load
/// ours and whose records load here. Each parameter is a submit of its own; a loop that owns its model steps faster
/// with [`GpuModuleOptimizer`](crate::GpuModuleOptimizer).
///
/// As Burn's trait has no way to return an error, a step that is refused panics with the message.
#[derive(Clone)]
pub struct RecipeOptimizer {
    gpu: Gpu,
    recipe: Recipe,
    /// What the kernels of a step need besides tensors, for each size that has occurred; clones share it.
    sizes: Arc<Mutex<HashMap<usize, GpuOptimizer>>>,
}

/// The state of one parameter: that of Burn's optimizer of the same base.
#[derive(Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // Burn boxes it
pub enum RecipeState<const D: usize> {
    /// m, v and the number of steps.
    AdamW(AdamWState<D>),
    /// m, and the number of steps, which Burn's own does not count.
    Lion(LionState<D>, usize),
}

impl<const D: usize> RecordState for RecipeState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::AdamW(state) => state.state_flatten(prefix, out),
            Self::Lion(state, steps) => {
                state.state_flatten(prefix, out);
                out.push_scalar(prefix, "step", (*steps).into());
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        if src.has_under(&burn::optim::join_path(prefix, "momentum")) {
            return AdamWState::state_unflatten(prefix, src, device).map(Self::AdamW);
        }
        let steps = src.take_scalar(prefix, "step").and_then(|steps| usize::try_from(steps).ok());
        LionState::state_unflatten(prefix, src, device).map(|state| Self::Lion(state, steps.unwrap_or(1)))
    }
}

impl RecipeOptimizer {
    /// The recipe for parameters on this device. The recipe's own learning rate is not used: each step is given one.
    pub fn new(gpu: &Gpu, recipe: Recipe) -> Self {
        Self { gpu: gpu.clone(), recipe, sizes: Arc::default() }
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
        let (steps, moments) = self.moments(state, &param).map_err(failed)?;
        let states = moments.len();
        let all = [vec![param.clone(), grad], moments].concat();
        drop(param);
        let mut storage = Vec::new();
        for tensor in all {
            storage.push(tensor::resolve(tensor, &self.gpu.device).map_err(failed)?);
        }
        let grad = tensor::dense(storage.remove(1));
        let targets: Vec<_> = storage.into_iter().map(tensor::exclusive).collect();

        let all: Vec<_> = targets.iter().chain([&grad]).collect();
        let mut places = Range::all(&all).map_err(|(_, reason)| failed(reason))?;
        let grad = places.pop().expect("a range for each tensor");
        let slices: Vec<_> = places[1..].iter().map(Range::slice).collect();
        let buffers = TensorBuffers::new(places[0].slice(), grad.slice()).with_state(&slices).with_lr(lr);

        let mut sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        if !sizes.contains_key(&numel) {
            let specs = [TensorSpec::new("parameter", [numel])];
            let made = match sizes.values().next() {
                Some(other) => other.sibling_blocking(&specs, self.recipe)?,
                None => {
                    let (device, queue) = (&self.gpu.wgpu_device, &self.gpu.queue);
                    GpuOptimizer::stateless_blocking(device, queue, &specs, self.recipe)?
                }
            };
            sizes.insert(numel, made);
        }
        let optimizer = sizes.get_mut(&numel).expect("inserted if it was absent");
        let mut encoder = self.gpu.encoder();
        optimizer.set_steps(steps as u64);
        optimizer.record_with(&mut encoder, &[buffers])?;
        self.gpu.queue.submit([encoder.finish()]);
        drop(sizes);

        let mut targets = targets.into_iter().map(tensor::wrap);
        let mut next = || targets.next().expect("a target for each tensor");
        let (param, steps) = (next(), steps + 1);
        let state = match states {
            2 => RecipeState::AdamW(AdamWState::new(AdaptiveMomentumState::new(steps, next(), next()))),
            _ => RecipeState::Lion(LionState::new(next()), steps),
        };
        Ok((param, Some(state)))
    }
}

impl RecipeOptimizer {
    /// The steps that the state has seen, and its tensors: zeros before the first step.
    fn moments<const D: usize>(
        &self,
        state: Option<RecipeState<D>>,
        param: &Tensor<D>,
    ) -> Result<(usize, Vec<Tensor<D>>), String> {
        let zeros = || Tensor::zeros(param.shape(), &param.device());
        let (steps, moments) = match (self.recipe.base, state) {
            (Base::Adamw(_), None) => (0, vec![zeros(), zeros()]),
            (Base::Lion(_), None) => (0, vec![zeros()]),
            (Base::Adamw(_), Some(RecipeState::AdamW(AdamWState { momentum }))) => {
                if momentum.max_moment_2.is_some() {
                    return Err("its record is of AMSGrad, which no recipe has".to_owned());
                }
                (momentum.time, vec![momentum.moment_1, momentum.moment_2])
            }
            (Base::Lion(_), Some(RecipeState::Lion(LionState { momentum }, steps))) => {
                (steps, vec![momentum])
            }
            (Base::Adamw(_), Some(RecipeState::Lion(..))) => {
                return Err("its record is of Lion, but the recipe is of AdamW".to_owned());
            }
            (Base::Lion(_), Some(RecipeState::AdamW(_))) => {
                return Err("its record is of AdamW, but the recipe is of Lion".to_owned());
            }
            (base, _) => return Err(format!("no state of Burn's serves {base:?}")),
        };
        match moments.iter().find(|moment| moment.shape() != param.shape()) {
            Some(moment) => Err(format!("its state has shape {:?}", moment.dims())),
            None => Ok((steps, moments)),
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
        }
    }
}
