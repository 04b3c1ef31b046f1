//! Optimizer steps on the CPU, in f32 or f64, without a GPU.
//!
//! In f32, they round the same scalars at the same places as the kernels. In f64, they are what both f32 versions are measured against.
//!
//! ```
//! use wgpu_optim::{Recipe, reference};
//!
//! let mut w = reference::Tensor::new(Recipe::adamw(0.1).mgup(), vec![1.0_f64, -2.0, 3.0, 4.0])?;
//! let step = w.step(&[0.5, -0.1, 0.0, 0.2]);
//! assert_eq!(step.selected, 2);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```

use std::fmt::Debug;

use num_traits::Float;

use crate::error::Result;
use crate::recipe::Recipe;
use crate::recipe::base::{BaseKind, Per, Recall, StepScalars};
use crate::recipe::float::{flushed, real};
use crate::recipe::matrix::Matrix;
use crate::recipe::policy::Policy;
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::StateFormat;

#[doc(hidden)]
pub use crate::recipe::base::newton_schulz;
pub use crate::recipe::float::grad_norm;
#[doc(hidden)]
pub use crate::recipe::policy::sampled;
pub use crate::recipe::policy::top_k;

/// A tensor with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    /// The recipe that steps it: the fallback, if a matrix base does not see a matrix in it.
    pub recipe: Recipe,
    /// The parameter θ, in row-major order.
    pub param: Vec<T>,
    /// The states, in the order of the [row](crate::base::BaseRow::states) of the base: a number per coordinate, row, column or tensor.
    /// AdaGO's `accumulator` is Σ n², without the a₀ that it begins with.
    pub states: Vec<Vec<T>>,
    /// Factors of the learning rate, one per component. Coordinate i uses the one at i modulo their number. Empty: all factors are 1.
    pub rates: Vec<T>,
    /// Number of steps taken.
    pub steps: u64,
    /// That of the spec, for the random bits of 8-bit states.
    identity: u32,
    matrix: Option<Matrix>,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Step<T> {
    /// The direction u; for matrices, before orthogonalization.
    pub direction: Vec<T>,
    /// The score s = u ⊙ g.
    pub score: Vec<T>,
    /// The factor φ of each coordinate.
    pub phi: Vec<T>,
    /// How many coordinates were selected (`mgup`) or had a positive score (`cautious`); 0 under other policies.
    pub selected: usize,
}

/// The factor that clips gradients of norm `norm` to `max_norm`: min(1, max_norm / (norm + 1e-6)), or 0 if `norm` is not finite.
///
/// ```
/// use wgpu_optim::reference::{self, clip_factor, grad_norm};
/// use wgpu_optim::{Recipe, TensorSpec};
///
/// let spec = TensorSpec::new("weight", [2, 2]);
/// let mut weight = reference::Tensor::with_shape(Recipe::muon(0.1).mgup(), &spec, vec![1.0f32, 0.0, 0.0, 1.0])?;
/// let grad = [3.0, 0.0, 0.0, 4.0];
/// let factor = clip_factor(grad_norm([&grad[..]]), 1.0);
/// let step: reference::Step<f32> = weight.step(&grad.map(|g| factor * g));
/// assert_eq!((step.selected, step.phi.len()), (2, 4));
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
pub fn clip_factor<T: Float>(norm: T, max_norm: f64) -> T {
    if norm.is_finite() { (real::<T>(max_norm) / (norm + real(1e-6))).min(T::one()) } else { T::zero() }
}

impl<T: Float + Debug> Tensor<T> {
    /// A vector before its first step.
    ///
    /// # Errors
    /// If the recipe is out of range, or a custom base or policy has no twin.
    pub fn new(recipe: Recipe, param: Vec<T>) -> Result<Self> {
        Self::with_shape(recipe, &TensorSpec::new("vector", [param.len()]), param)
    }

    /// A tensor of this shape and matrix layout before its first step; its group does not matter.
    ///
    /// # Errors
    /// If the recipe is out of range, or a custom base or policy has no twin.
    ///
    /// # Panics
    /// If the parameter has another length than the shape says.
    pub fn with_shape(recipe: Recipe, spec: &TensorSpec, param: Vec<T>) -> Result<Self> {
        recipe.validate()?;
        assert_eq!(spec.numel(), param.len() as u64, "a parameter has the length that its shape says");
        let recipe = recipe.on(spec);
        recipe.needs_twin()?;
        let zeros = |per: Per| vec![T::zero(); per.shape(spec).iter().product()];
        Ok(Self {
            states: BaseKind::of(&recipe.base).row().states.iter().map(|state| zeros(state.per)).collect(),
            recipe,
            param,
            rates: Vec::new(),
            steps: 0,
            identity: spec.identity(),
            matrix: spec.matrix().filter(|_| recipe.base.newton_schulz().is_some()),
        })
    }

    /// The state of this name, if its base has it.
    pub fn state(&self, name: &str) -> Option<&[T]> {
        let states = BaseKind::of(&self.recipe.base).row().states;
        states.iter().position(|state| state.name == name).map(|i| &self.states[i][..])
    }

    /// The parameter for evaluation: the average under schedule-free bases, the parameter itself under others.
    ///
    /// ```
    /// use wgpu_optim::base::ScheduleFreeSgd;
    /// use wgpu_optim::{Recipe, reference};
    ///
    /// let recipe = Recipe::from(ScheduleFreeSgd::new(0.1).momentum(0.5));
    /// let mut w = reference::Tensor::new(recipe, vec![1.0_f64])?;
    /// w.step(&[1.0]); // z = 0.9, which is the whole average after one step
    /// w.step(&[1.0]); // z = 0.8, the average 0.85, and the parameter between them
    /// let close = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
    /// assert!(close(w.evaluated()[0], 0.85) && close(w.param[0], 0.825));
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    pub fn evaluated(&self) -> Vec<T> {
        let Some(beta1) = self.recipe.base.averaging() else { return self.param.clone() };
        let share = real::<T>((1.0 - beta1) / beta1);
        self.param.iter().zip(&self.states[0]).map(|(&theta, &offset)| theta - share * offset).collect()
    }

    /// Takes one step.
    ///
    /// # Panics
    /// If the gradient has another length than the parameter, or `recipe` was replaced by one without a twin.
    pub fn step(&mut self, grad: &[T]) -> Step<T> {
        self.step_beside(grad, &[]).0
    }

    /// Takes one step as a GPU does, whose 8-bit states after this step were `found`. Where f32 rounds a state differently there, it may
    /// become the next number instead of this one. Then the step goes on with that number. Also returns how often that happened.
    pub(crate) fn step_beside(&mut self, grad: &[T], found: &[Vec<f32>]) -> (Step<T>, usize) {
        assert_eq!(grad.len(), self.param.len(), "a gradient has the shape of its parameter");
        self.steps += 1;
        let scalars = self.recipe.base.scalars(self.steps);
        let (mut decay, mut decays) = (real::<T>(scalars.decay), None);
        let coupled = (scalars.penalty != 0.0).then(|| {
            grad.iter().zip(&self.param).map(|(&g, &theta)| g + real::<T>(scalars.penalty) * theta).collect::<Vec<_>>()
        });
        let (direction, others) = self.advance(&scalars, coupled.as_deref().unwrap_or(grad), found);
        let score: Vec<T> = direction.iter().zip(grad).map(|(&u, &g)| u * g).collect();
        let (phi, selected) = phi(&self.recipe.policy, &score, self.steps);
        // The direction orthogonalized, times the factor of this matrix in this step.
        let orthogonal = self.matrix.map(|matrix| {
            let [rate, own] = self.recipe.base.matrix_rate(matrix, &scalars, [grad, &direction], &mut self.states);
            decay = decay * own;
            let ns = self.recipe.base.newton_schulz().expect("only matrix bases have matrices");
            let mut orthogonal: Vec<T> = newton_schulz(&direction, matrix, ns).into_iter().map(|o| rate * o).collect();
            let of = [grad, &direction, &orthogonal];
            if let Some((per, rates)) = self.recipe.base.line_rates(matrix, &scalars, of, &mut self.states) {
                let lines = per.lines(matrix);
                orthogonal.iter_mut().zip(&lines).for_each(|(o, &line)| *o = rates[line][0] * *o);
                decays = Some(lines.iter().map(|&line| (decay * rates[line][1]).min(T::one())).collect::<Vec<_>>());
            }
            orthogonal
        });
        let of = [grad, &direction, &self.param];
        let step = real::<T>(scalars.step) * self.recipe.base.tensor_rate(&scalars, of, &mut self.states);
        let moved = orthogonal.as_ref().unwrap_or(&direction);
        let cautious = self.recipe.base.has_cautious_decay();
        let rate = |i: usize| if self.rates.is_empty() { T::one() } else { self.rates[i % self.rates.len()] };
        let weight = self.recipe.base.average_weight::<T>(self.steps, &mut self.states);
        let beta1 = real::<T>(scalars.betas[0]);
        for (i, ((theta, &u), &phi)) in self.param.iter_mut().zip(moved).zip(&phi).enumerate() {
            let update = phi * u;
            let way = if phi == T::zero() { u } else { update };
            let is_away = *theta > T::zero() && way < T::zero() || *theta < T::zero() && way > T::zero();
            let decaying = if cautious && is_away { T::zero() } else { *theta };
            let decay = decays.as_ref().map_or(decay, |decays| decays[i]);
            let taken = rate(i) * (decay * decaying + step * update);
            match weight {
                None => *theta = *theta - taken,
                Some(weight) => {
                    let (offset, kept) = (&mut self.states[0][i], T::one() - weight);
                    *theta = *theta + (weight * *offset - (T::one() - beta1 * kept) * taken);
                    *offset = kept * (*offset - beta1 * taken);
                }
            }
        }
        (Step { direction, score, phi, selected }, others)
    }
}

impl<T: Float> Tensor<T> {
    /// Moves the states on, and returns the direction, and how many states are as they were found elsewhere.
    fn advance(&mut self, scalars: &StepScalars, grad: &[T], found: &[Vec<f32>]) -> (Vec<T>, usize) {
        let Recipe { base, state, .. } = self.recipe;
        let direction = base.advance(scalars, grad, &mut self.states);
        if state == StateFormat::F32 {
            return (direction, 0);
        }
        let mut others = 0;
        let row = BaseKind::of(&base).row();
        let per_coordinate = row.states.iter().zip(&mut self.states).filter(|(row, _)| row.per == Per::Coordinate);
        let t = u32::try_from(self.steps).unwrap_or(u32::MAX);
        for (number, (row, values)) in (0..).zip(per_coordinate) {
            let exact: Vec<f32> = values.iter().map(|x| x.to_f32().expect("a number")).collect();
            let mut rounded = row.code().round(&exact, number, t, self.identity);
            if let Some(found) = found.get(number as usize) {
                others += row.code().adopt(&mut rounded, &exact, found);
            }
            values.iter_mut().zip(rounded).for_each(|(value, rounded)| *value = real(rounded.into()));
        }
        let is_after = row.recall != Recall::Sign;
        (if is_after { base.direction(scalars, grad, &self.states) } else { direction }, others)
    }
}

/// φ of a tensor's scores in step `t`, and how many were selected.
///
/// ```
/// use wgpu_optim::policy::Mgup;
/// use wgpu_optim::reference::{phi, top_k};
///
/// let scores = [0.3f32, -0.1, 0.7, 0.0];
/// assert_eq!(top_k(&scores, 2), [true, false, true, false]);
/// assert_eq!(phi(&Mgup::default().into(), &scores, 1), (vec![2.0, 0.5, 2.0, 0.5], 2));
/// ```
///
/// # Panics
/// If a custom policy has no twin.
pub fn phi<T: Float>(policy: &Policy, score: &[T], t: u64) -> (Vec<T>, usize) {
    policy.phi(score, t)
}

/// The order-preserving key of a score, as `shaders/lib/keys.wgsl` computes it. NaN has the key 0, below every other.
#[doc(hidden)]
pub fn key(score: f32) -> u32 {
    let bits = flushed(score).to_bits();
    match bits >> 31 {
        _ if score.is_nan() => 0,
        1 => !bits,
        _ => bits | 0x8000_0000,
    }
}
