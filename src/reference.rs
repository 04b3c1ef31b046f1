//! The same mathematics on the CPU, generic over f32 and f64. Needs no GPU.
//!
//! With f32 it is the twin of the kernels, with the same scalars rounded at the same places; with f64 it is the truth
//! that both are measured against.
//!
//! ```
//! use wgpu_optim::{Recipe, reference};
//!
//! let mut w = reference::Tensor::new(Recipe::mgup_adamw(0.1), vec![1.0_f64, -2.0, 3.0, 4.0])?;
//! let step = w.step(&[0.5, -0.1, 0.0, 0.2]);
//! assert_eq!(step.selected, 2);
//! # Ok::<(), wgpu_optim::Error>(())
//! ```

use std::fmt::Debug;

use num_traits::Float;

use crate::base::Base;
use crate::error::Error;
use crate::plan::SMALL;
use crate::policy::{Normalizer, Policy, Selection};
use crate::recipe::Recipe;
use crate::sampling::Sampling;

/// A tensor with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    /// What steps it.
    pub recipe: Recipe,
    /// θ.
    pub param: Vec<T>,
    /// m.
    pub exp_avg: Vec<T>,
    /// v; empty for bases without it.
    pub exp_avg_sq: Vec<T>,
    /// Steps taken.
    pub steps: u64,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<T> {
    /// u.
    pub direction: Vec<T>,
    /// s = u ⊙ g.
    pub score: Vec<T>,
    /// φ.
    pub phi: Vec<T>,
    /// How many coordinates were selected (`mgup`) or had a positive score (`cautious`); 0 under other policies.
    pub selected: usize,
}

/// ‖g‖₂ over all gradients of a step.
pub fn grad_norm<'a, T: Float + 'a>(grads: impl IntoIterator<Item = &'a [T]>) -> T {
    let squares = grads.into_iter().flatten().fold(T::zero(), |sum, &g| sum + g * g);
    squares.sqrt()
}

/// What clipping to `max_norm` multiplies gradients of norm `norm` by; 0 if that norm is not finite.
pub fn clip_factor<T: Float>(norm: T, max_norm: f64) -> T {
    if norm.is_finite() { (real::<T>(max_norm) / (norm + real(1e-6))).min(T::one()) } else { T::zero() }
}

impl<T: Float + Debug> Tensor<T> {
    /// A tensor before its first step.
    ///
    /// # Errors
    /// If the recipe is out of range.
    pub fn new(recipe: Recipe, param: Vec<T>) -> Result<Self, Error> {
        recipe.validate()?;
        let zeros = vec![T::zero(); param.len()];
        Ok(Self {
            recipe,
            exp_avg_sq: match recipe.base {
                Base::Adamw(_) => zeros.clone(),
                Base::Lion(_) => Vec::new(),
            },
            exp_avg: zeros,
            param,
            steps: 0,
        })
    }

    /// Takes one step.
    ///
    /// # Panics
    /// If the gradient has another length than the parameter.
    pub fn step(&mut self, grad: &[T]) -> Step<T> {
        assert_eq!(grad.len(), self.param.len(), "a gradient has the shape of its parameter");
        self.steps += 1;
        let scalars = self.recipe.base.scalars(self.steps);
        let (step, decay) = (real::<T>(scalars.step), real::<T>(scalars.decay));
        let direction = self.advance(grad);
        let score: Vec<T> = direction.iter().zip(grad).map(|(&u, &g)| u * g).collect();
        let (phi, selected) = phi(&self.recipe.policy, &score, self.steps);
        for ((theta, &u), &phi) in self.param.iter_mut().zip(&direction).zip(&phi) {
            *theta = *theta - (decay * *theta + step * (phi * u));
        }
        Step { direction, score, phi, selected }
    }

    /// Moves the state on and returns the direction.
    fn advance(&mut self, grad: &[T]) -> Vec<T> {
        let scalars = self.recipe.base.scalars(self.steps);
        let [beta1, beta2] = scalars.betas.map(real::<T>);
        let [rest1, rest2] = scalars.betas.map(|beta| real::<T>(1.0 - beta));
        match self.recipe.base {
            Base::Adamw(_) => {
                let eps = real::<T>(scalars.eps);
                let moments = self.exp_avg.iter_mut().zip(&mut self.exp_avg_sq);
                moments
                    .zip(grad)
                    .map(|((m, v), &g)| {
                        *m = beta1 * *m + rest1 * g;
                        *v = beta2 * *v + rest2 * (g * g);
                        *m / (v.sqrt() + eps)
                    })
                    .collect()
            }
            Base::Lion(_) => self
                .exp_avg
                .iter_mut()
                .zip(grad)
                .map(|(m, &g)| {
                    let interpolated = beta1 * *m + rest1 * g;
                    *m = beta2 * *m + rest2 * g;
                    if interpolated == T::zero() { T::zero() } else { interpolated.signum() }
                })
                .collect(),
        }
    }
}

/// φ of a tensor's scores in step `t`, and how many were selected.
pub fn phi<T: Float>(policy: &Policy, score: &[T], t: u64) -> (Vec<T>, usize) {
    let (alpha, gamma) = policy.factors();
    let (alpha, gamma) = (real::<T>(alpha), real::<T>(gamma));
    match policy {
        Policy::Plain(_) => (vec![T::one(); score.len()], 0),
        Policy::Grams(_) => (score.iter().map(|&s| sign(s)).collect(), 0),
        Policy::CautiousMgup(_) => {
            (score.iter().map(|&s| if sign(s) > T::zero() { alpha } else { gamma }).collect(), 0)
        }
        Policy::Cautious(cautious) => {
            let mask: Vec<bool> = score.iter().map(|&s| sign(s) > T::zero()).collect();
            let (positive, d) = (mask.iter().filter(|&&p| p).count(), real::<T>(score.len() as f64));
            let sum = real::<T>(positive as f64);
            let c = match cautious.normalizer {
                Normalizer::Mean => T::one() / (sum / d).max(real(1e-3)),
                Normalizer::Count => d / (sum + T::one()),
            };
            (mask.into_iter().map(|p| if p { c } else { T::zero() }).collect(), positive)
        }
        Policy::Mgup(mgup) => {
            let selected = match mgup.selection {
                Selection::Exact => top_k(score, mgup.k(score.len())),
                Selection::Approximate => sampled(score, mgup.k(score.len()), t),
            };
            let count = selected.iter().filter(|&&s| s).count();
            (selected.into_iter().map(|s| if s { alpha } else { gamma }).collect(), count)
        }
    }
}

/// The `k` largest scores, ties to the lower index; NaN is never among them.
pub fn top_k<T: Float>(score: &[T], k: usize) -> Vec<bool> {
    let mut candidates: Vec<usize> = (0..score.len()).filter(|&i| !score[i].is_nan()).collect();
    let k = k.min(candidates.len());
    let mut selected = vec![false; score.len()];
    if k == 0 {
        return selected;
    }
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, |&a, &b| {
            let (x, y) = (flushed(score[a]), flushed(score[b]));
            y.partial_cmp(&x).expect("NaN was left out").then(a.cmp(&b))
        });
    }
    for &i in &candidates[..k] {
        selected[i] = true;
    }
    selected
}

/// Approximate selection in step `t`: the scores that are no smaller than the one that the step's sample takes for the
/// `k`-th largest, ties to the lower index; the `k` largest where there are no more than 4,096.
pub fn sampled<T: Float>(score: &[T], k: usize, t: u64) -> Vec<bool> {
    let numel = score.len() as u64;
    if numel <= SMALL {
        return top_k(score, k);
    }
    let cut = sampled_cut(score, Sampling::new(numel, k as u64), t, 0);
    (0..score.len()).map(|i| cut.is_some_and(|cut| !score[i].is_nan() && !precedes(score, cut, i))).collect()
}

/// The last coordinate that approximate selection takes, `shift` ranks of the sample further; `None` if it takes none.
pub(crate) fn sampled_cut<T: Float>(score: &[T], sampling: Sampling, t: u64, shift: isize) -> Option<usize> {
    let mut sample: Vec<usize> =
        sampling.indices(score.len() as u64, t).filter(|&i| !score[i].is_nan()).collect();
    let rank = (sampling.middle as usize).saturating_add_signed(shift).checked_sub(1)?;
    let order = |&a: &usize, &b: &usize| {
        let (x, y) = (flushed(score[a]), flushed(score[b]));
        y.partial_cmp(&x).expect("NaN was left out").then(a.cmp(&b))
    };
    if rank < sample.len() {
        Some(*sample.select_nth_unstable_by(rank, order).1)
    } else {
        // The sample has fewer numbers: all are taken.
        (0..score.len()).filter(|&i| !score[i].is_nan()).max_by(order)
    }
}

/// Whether `a` is selected before `b`; neither is NaN.
fn precedes<T: Float>(score: &[T], a: usize, b: usize) -> bool {
    let (x, y) = (flushed(score[a]), flushed(score[b]));
    x > y || (x == y && a < b)
}

/// The key of NaN, below every other.
pub const NAN_KEY: u32 = 0;

/// The order-preserving key of a score, as `shaders/lib/keys.wgsl` computes it.
pub fn key(score: f32) -> u32 {
    let bits = score.to_bits();
    if score.is_nan() {
        NAN_KEY
    } else if score.abs() < f32::MIN_POSITIVE {
        0x8000_0000
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 0x8000_0000
    }
}

/// |s| < 2⁻¹²⁶ is zero.
fn flushed<T: Float>(s: T) -> T {
    if s.abs() < real(f64::from(f32::MIN_POSITIVE)) { T::zero() } else { s }
}

/// 1, 0 or −1; 0 for NaN.
fn sign<T: Float>(s: T) -> T {
    let s = flushed(s);
    if s > T::zero() {
        T::one()
    } else if s < T::zero() {
        -T::one()
    } else {
        T::zero()
    }
}

fn real<T: Float>(x: f64) -> T {
    T::from(x).expect("f32 and f64 hold every hyper-parameter, rounded")
}
