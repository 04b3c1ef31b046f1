//! [`RecipeOptimizer`]: a recipe as one of Burn's own optimizers, a parameter at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use burn::optim::{
    AdamWState, AdaptiveMomentumState, LearningRate, LionState, Optimizer, RecordState, StateSink, StateSource,
};
use burn::tensor::{DType, Device, Tensor, TensorData};
use wgpu_optim::base::{BaseKind, Per};
use wgpu_optim::{Base, GpuOptimizer, MatrixLayout, Recipe, StateFormat, TensorBuffers, TensorSlice, TensorSpec};

use crate::error::Error;
use crate::gpu::Gpu;
use crate::state::{bases_of, counts, is_of_burn, leaf, shape_of};
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
/// State lies in Burn tensors. Records use the names of Burn's optimizers where Burn has the same one, so each can load the
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

/// The state of one parameter. Adam, AdamW and Lion have the state of Burn's optimizers.
#[derive(Clone)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // Burn boxes it
pub enum RecipeState<const D: usize> {
    /// m, v and the number of steps, of Adam too.
    AdamW(AdamWState<D>),
    /// m, and the number of steps, which Burn's own does not count.
    Lion(LionState<D>, usize),
    /// The state of another base.
    Other(OtherState<D>),
}

/// The state of a base that is neither Adam, AdamW nor Lion, as kernels bind it.
#[derive(Clone)]
pub struct OtherState<const D: usize> {
    base: BaseKind,
    /// A tensor for each binding: a state, or two that follow each other.
    bindings: Vec<Tensor<1>>,
    /// States per tensor.
    scalars: Vec<Tensor<1>>,
    shape: [usize; D],
    steps: usize,
}

impl<const D: usize> OtherState<D> {
    /// Zeros before the first step.
    fn new(base: BaseKind, shape: [usize; D], spec: &TensorSpec, device: &Device) -> Self {
        let bindings = lengths(base, spec).map(|length| Tensor::zeros([length], device));
        let scalars = base.scalar_names().map(|_| Tensor::zeros([1], device)).collect();
        Self { base, bindings: bindings.collect(), scalars, shape, steps: 0 }
    }

    /// The state from values of this shape for each state of the base, in the order of its row.
    fn of(base: BaseKind, shape: [usize; D], states: Vec<Vec<f32>>, steps: usize, device: &Device) -> Self {
        let (mut states, numel) = (states.into_iter(), shape.iter().product::<usize>());
        let bindings = base.state_bindings(false).iter().map(|binding| {
            let mut values = Vec::new();
            for (i, state) in states.by_ref().take(binding.states.len()).enumerate() {
                values.resize(i * distance(numel), 0.0);
                values.extend(state);
            }
            if binding.states.len() > 1 {
                values.resize(binding.states.len() * distance(numel), 0.0);
            }
            Tensor::from_floats(&values[..], device)
        });
        let bindings = bindings.collect();
        let scalars = states.map(|value| Tensor::from_floats(&value[..], device)).collect();
        Self { base, bindings, scalars, shape, steps }
    }

    /// Name in a record, shape and values of each state.
    fn states(&self) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        let numel = self.shape.iter().product::<usize>();
        let values = |tensor: &Tensor<1>| tensor.to_data().iter::<f32>().collect::<Vec<_>>();
        let bindings = self.base.state_bindings(false).iter().zip(&self.bindings).flat_map(|(binding, tensor)| {
            let all = values(tensor);
            match binding.states.len() {
                1 => vec![all],
                count => (0..count).map(|i| all[i * distance(numel)..][..numel].to_vec()).collect(),
            }
        });
        let spec = TensorSpec::new("", self.shape);
        let named = self.base.row().states.iter().zip(bindings.chain(self.scalars.iter().map(values)));
        let shaped = named.map(|(state, values)| {
            // Which dimension holds the inputs depends on the layout, so these states are saved as vectors.
            let shape = match state.per {
                Per::Input | Per::Output => vec![values.len()],
                _ => shape_of(self.base, state, &spec),
            };
            (leaf(self.base, state.name), shape, values)
        });
        shaped.collect()
    }

    fn on(self, device: &Device) -> Self {
        let to_device = |tensors: Vec<Tensor<1>>| tensors.into_iter().map(|tensor| tensor.to_device(device)).collect();
        Self { bindings: to_device(self.bindings), scalars: to_device(self.scalars), ..self }
    }
}

/// Numbers in each binding of states of a tensor.
fn lengths(base: BaseKind, spec: &TensorSpec) -> impl Iterator<Item = usize> {
    base.state_bindings(false).iter().map(|binding| {
        let numel = binding.per.shape(spec).iter().product();
        if binding.states.len() > 1 { binding.states.len() * distance(numel) } else { numel }
    })
}

/// Coordinates from one state of a pair to the other.
fn distance(numel: usize) -> usize {
    numel.next_multiple_of(128)
}

impl<const D: usize> RecordState for RecipeState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        match self {
            Self::AdamW(state) => state.state_flatten(prefix, out),
            Self::Lion(state, steps) => {
                state.state_flatten(prefix, out);
                out.push_scalar(prefix, "step", (*steps).into());
            }
            Self::Other(state) => {
                for (name, shape, values) in state.states() {
                    out.push_tensor(prefix, name, TensorData::new(values, shape));
                }
                for name in counts(state.base).into_iter().chain(["step"]) {
                    out.push_scalar(prefix, name, state.steps.into());
                }
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        // All that is there, under any base's names.
        let leaves =
            BaseKind::known().flat_map(|base| base.row().states.iter().map(move |state| leaf(base, state.name)));
        let mut found: BTreeMap<_, _> =
            leaves.filter_map(|leaf| Some((leaf, src.take_tensor(prefix, leaf)?))).collect();
        let mut count = |name| src.take_scalar(prefix, name).and_then(|steps| usize::try_from(steps).ok());
        let steps = count("step");
        let shapes = found.iter().map(|(leaf, data)| (*leaf, data.shape().to_vec())).collect();
        // Among bases with the same states, a built-in one is preferred.
        let base = bases_of(&shapes).max_by_key(|base| (base.row().states.len(), base.row().custom.is_none()))?;
        if is_of_burn(base) {
            for (leaf, data) in found {
                src.insert_tensor(burn::optim::join_path(prefix, leaf), data);
            }
            return match base.row().name {
                "lion" => {
                    LionState::state_unflatten(prefix, src, device).map(|state| Self::Lion(state, steps.unwrap_or(1)))
                }
                _ => AdamWState::state_unflatten(prefix, src, device).map(Self::AdamW),
            };
        }
        // Burn's SGD does not count its steps.
        let uncounted = found.contains_key("momentum.velocity").then_some(1);
        let steps = counts(base).and_then(&mut count).or(steps).or(uncounted)?;
        let (mut shape, mut states) = ([1; D], Vec::new());
        for state in base.row().states {
            let data = found.remove(leaf(base, state.name))?;
            // Moments of rows have one column, and moments of columns have one row.
            if let (false, Ok(own)) = (state.per == Per::Tensor, <[usize; D]>::try_from(data.shape().as_slice())) {
                shape = std::array::from_fn(|i| own[i].max(shape[i]));
            }
            states.push(data.iter::<f32>().collect());
        }
        Some(Self::Other(OtherState::of(base, shape, states, steps, device)))
    }
}

impl RecipeOptimizer {
    /// An optimizer for parameters on this device. You pass the learning rate to each step. The recipe's own is only
    /// the base of proportions: of the fallback's rate, and of AdaGO's `min_step`.
    pub fn new(gpu: &Gpu, recipe: impl Into<Recipe>) -> Self {
        let recipe = recipe.into();
        // This registers the kind of a custom base, so that records with its states are recognized.
        BaseKind::of(&recipe.base);
        Self { gpu: gpu.clone(), recipe, sizes: Arc::default(), layout: MatrixLayout::InOut }
    }

    /// Sets how matrix bases read parameters as matrices. Default: rank 2 is a matrix of (in, out), the default of Burn's
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
        let recipe = recipe.on(&spec);
        let kind = BaseKind::of(&recipe.base);
        if recipe.state != StateFormat::F32 {
            let only = "its state is in tensors of Burn, which are f32; take `GpuModuleOptimizer` for 8-bit states";
            return Err(failed(only.to_owned()));
        }
        // Kernels of other bases are shared by tensors of the same size.
        let keeps_shape = kind.is_matrix() || kind.has_lines();
        let spec = if keeps_shape { spec } else { TensorSpec::new("parameter", [numel]) };
        let state = fitting(kind, state, &param, &spec).map_err(failed)?;
        let (steps, moments, others, scalar_count) = match state {
            RecipeState::AdamW(AdamWState { momentum }) => {
                (momentum.time, vec![momentum.moment_1, momentum.moment_2], Vec::new(), 0)
            }
            RecipeState::Lion(LionState { momentum }, steps) => (steps, vec![momentum], Vec::new(), 0),
            RecipeState::Other(OtherState { bindings, scalars, steps, .. }) => {
                let count = scalars.len();
                (steps, Vec::new(), [bindings, scalars].concat(), count)
            }
        };
        let (shape, all) = (param.dims(), [vec![param.clone(), grad], moments].concat());
        drop(param);
        let mut storage = Vec::new();
        for tensor in all {
            storage.push(tensor::resolve(tensor, &self.gpu.device, DType::F32).map_err(failed)?);
        }
        let grad = tensor::dense(storage.remove(1));
        for tensor in others {
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
        let size = spec.shape.clone();
        if !sizes.contains_key(&size) {
            let made = match sizes.values().next() {
                Some(other) => other.sibling_blocking(&[spec], recipe)?,
                None => {
                    let (device, queue) = (&self.gpu.wgpu_device, &self.gpu.queue);
                    GpuOptimizer::stateless_blocking(device, queue, &[spec], recipe)?
                }
            };
            sizes.insert(size.clone(), made);
        }
        let optimizer = sizes.get_mut(&size).expect("inserted if it was absent");
        let mut encoder = self.gpu.encoder();
        optimizer.set_steps(steps as u64);
        optimizer.record_with(&mut encoder, &[buffers])?;
        self.gpu.queue.submit([encoder.finish()]);
        drop(sizes);

        let mut targets = targets.into_iter();
        let mut next = || targets.next().expect("a target for each tensor");
        let (param, steps) = (tensor::wrap(next()), steps + 1);
        let state = match recipe.base {
            Base::Lion(_) => RecipeState::Lion(LionState::new(tensor::wrap(next())), steps),
            _ if is_of_burn(kind) => {
                let (m, v) = (tensor::wrap(next()), tensor::wrap(next()));
                RecipeState::AdamW(AdamWState::new(AdaptiveMomentumState::new(steps, m, v)))
            }
            _ => {
                let bindings = kind.state_bindings(false).iter().map(|_| tensor::wrap(next())).collect();
                let scalars = kind.scalar_names().map(|_| tensor::wrap(next())).collect();
                RecipeState::Other(OtherState { base: kind, bindings, scalars, shape, steps })
            }
        };
        Ok((param, Some(state)))
    }
}

/// The state of a parameter under a base: the given one if it fits, zeros before the first step.
fn fitting<const D: usize>(
    base: BaseKind,
    state: Option<RecipeState<D>>,
    param: &Tensor<D>,
    spec: &TensorSpec,
) -> Result<RecipeState<D>, String> {
    let (device, shape) = (param.device(), param.dims());
    let is_lion = base.row().name == "lion";
    let state = match state {
        Some(state) => state,
        None => {
            let zeros = || Tensor::zeros(shape, &device);
            return Ok(match (is_lion, is_of_burn(base)) {
                (true, _) => RecipeState::Lion(LionState::new(zeros()), 0),
                (_, true) => RecipeState::AdamW(AdamWState::new(AdaptiveMomentumState::new(0, zeros(), zeros()))),
                _ => RecipeState::Other(OtherState::new(base, shape, spec, &device)),
            });
        }
    };
    let leaves = |base: BaseKind| base.row().states.iter().map(move |state| leaf(base, state.name));
    let state = match state {
        // A vector has as many rows as coordinates, so a record with one moment per row may have been read as an AdamW's.
        RecipeState::AdamW(AdamWState { momentum })
            if base.has_lines() && leaves(base).eq(["momentum.moment_1", "momentum.moment_2"]) =>
        {
            let (shape, steps) = (momentum.moment_1.dims(), momentum.time);
            let flat = |tensor: Tensor<D>| {
                let numel = tensor.shape().num_elements();
                tensor.reshape([numel])
            };
            let bindings = vec![flat(momentum.moment_1), flat(momentum.moment_2)];
            RecipeState::Other(OtherState { base, bindings, scalars: Vec::new(), shape, steps })
        }
        state => state,
    };
    let (fits, dims) = match &state {
        RecipeState::AdamW(state) => (is_of_burn(base) && !is_lion, state.momentum.moment_1.dims()),
        RecipeState::Lion(state, _) => (is_lion, state.momentum.dims()),
        // Bases may have the same states.
        RecipeState::Other(state) => {
            let dims = if state.bindings.is_empty() { shape } else { state.shape };
            (!is_of_burn(base) && leaves(state.base).eq(leaves(base)), dims)
        }
    };
    if !fits {
        return Err(format!("its record is of {}, but the recipe is of {}", state.base(), base.row().name));
    }
    if dims != shape {
        return Err(format!("its state has shape {dims:?}"));
    }
    if let RecipeState::Other(state) = &state
        && !state.bindings.iter().map(|binding| binding.shape().num_elements()).eq(lengths(base, spec))
    {
        let (theirs, own) = (state.base.row().name, base.row().name);
        return Err(format!("its record is of {theirs}, whose states have other sizes than those of {own}"));
    }
    Ok(state)
}

impl<const D: usize> RecipeState<D> {
    /// The base that it is of.
    fn base(&self) -> &'static str {
        match self {
            Self::AdamW(_) => "adamw",
            Self::Lion(..) => "lion",
            Self::Other(state) => state.base.row().name,
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
            RecipeState::Other(state) => RecipeState::Other(state.on(device)),
        }
    }
}
