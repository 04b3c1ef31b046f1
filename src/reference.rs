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

use crate::base::{AdaGo, AdamW, Base, NewtonSchulz, SecondMoment};
use crate::error::Error;
use crate::matrix::Matrix;
use crate::plan::{SMALL, TensorSpec};
use crate::policy::{Normalizer, Policy, Selection};
use crate::recipe::Recipe;
use crate::sampling::Sampling;

/// A tensor with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<T> {
    /// What steps it: the fallback, where a matrix base has no matrix.
    pub recipe: Recipe,
    /// θ.
    pub param: Vec<T>,
    /// m.
    pub exp_avg: Vec<T>,
    /// v; empty for bases without it.
    pub exp_avg_sq: Vec<T>,
    /// Σ n² of AdaGO, without the a₀ that it begins with.
    pub accumulator: T,
    /// Factors of the learning rate of each component, coordinate i's at i modulo their number; empty for none.
    pub rates: Vec<T>,
    /// Steps taken.
    pub steps: u64,
    matrix: Option<Matrix>,
    /// Coordinates that share a second moment.
    row_len: usize,
}

/// What happened in a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<T> {
    /// u; for matrices, before it is orthogonalised.
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
    /// A vector before its first step.
    ///
    /// # Errors
    /// If the recipe is out of range.
    pub fn new(recipe: Recipe, param: Vec<T>) -> Result<Self, Error> {
        Self::with_shape(recipe, &TensorSpec::new("vector", [param.len()]), param)
    }

    /// A tensor of this shape and matrix layout before its first step; its group does not matter.
    ///
    /// # Errors
    /// If the recipe is out of range.
    ///
    /// # Panics
    /// If the parameter has another length than the shape says.
    pub fn with_shape(recipe: Recipe, spec: &TensorSpec, param: Vec<T>) -> Result<Self, Error> {
        recipe.validate()?;
        assert_eq!(spec.numel(), param.len() as u64, "a parameter has the length that its shape says");
        let recipe = recipe.on(spec);
        let zeros = vec![T::zero(); param.len()];
        let row_len = match recipe.base {
            Base::Adamw(AdamW { second_moment: SecondMoment::Row, .. }) => {
                param.len() / spec.shape.first().copied().unwrap_or(1)
            }
            _ => 1,
        };
        Ok(Self {
            recipe,
            row_len,
            exp_avg_sq: match recipe.base {
                Base::Adamw(_) => vec![T::zero(); param.len() / row_len],
                Base::Lion(_) | Base::Muon(_) | Base::Adago(_) => Vec::new(),
            },
            exp_avg: zeros,
            param,
            accumulator: T::zero(),
            rates: Vec::new(),
            steps: 0,
            matrix: spec.matrix().filter(|_| recipe.base.newton_schulz().is_some()),
        })
    }

    /// v of a coordinate, of bases that have it.
    pub(crate) fn second_moment(&self, i: usize) -> T {
        self.exp_avg_sq[i / self.row_len]
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
        let orthogonal = self.matrix.map(|matrix| self.orthogonal(matrix, &direction, grad));
        let moved = orthogonal.as_ref().unwrap_or(&direction);
        let rate = |i: usize| if self.rates.is_empty() { T::one() } else { self.rates[i % self.rates.len()] };
        for (i, ((theta, &u), &phi)) in self.param.iter_mut().zip(moved).zip(&phi).enumerate() {
            *theta = *theta - rate(i) * (decay * *theta + step * (phi * u));
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
                for (v, row) in self.exp_avg_sq.iter_mut().zip(grad.chunks(self.row_len)) {
                    let squares = row.iter().fold(T::zero(), |sum, &g| add_square(sum, g));
                    *v = beta2 * *v + rest2 * (squares / real(self.row_len as f64));
                }
                let second = |i: usize| self.exp_avg_sq[i / self.row_len].sqrt();
                let moments = self.exp_avg.iter_mut().zip(grad).enumerate();
                moments
                    .map(|(i, (m, &g))| {
                        *m = beta1 * *m + rest1 * within_squares(g);
                        *m / (second(i) + eps)
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
            Base::Muon(_) | Base::Adago(_) => self
                .exp_avg
                .iter_mut()
                .zip(grad)
                .map(|(m, &g)| {
                    *m = beta1 * *m + rest1 * g;
                    beta2 * *m + rest2 * g
                })
                .collect(),
        }
    }

    /// The direction orthogonalised, times what the step of this matrix is scaled by.
    fn orthogonal(&mut self, matrix: Matrix, direction: &[T], grad: &[T]) -> Vec<T> {
        let rate = match self.recipe.base {
            Base::Adago(b) => {
                let n = grad_norm([grad]).min(real(b.clip));
                self.accumulator = self.accumulator + n * n;
                adago_rate(&b, n, self.accumulator)
            }
            base => real(base.rate(matrix)),
        };
        let ns = self.recipe.base.newton_schulz().expect("only matrix bases have matrices");
        newton_schulz(direction, matrix, ns).into_iter().map(|o| rate * o).collect()
    }
}

/// The largest |g| whose square f32 holds, if T is f32: a larger one counts as this under AdamW.
fn largest<T: Float>() -> Option<T> {
    T::from(1.84e19).filter(|_| T::max_value() <= real(f32::MAX.into()))
}

fn within_squares<T: Float>(g: T) -> T {
    largest().filter(|&largest| g.abs() > largest).map_or(g, |largest| largest.copysign(g))
}

/// The sum of squares with one more, the square of the largest at most, so that a second moment stays finite and decays again.
fn add_square<T: Float>(sum: T, g: T) -> T {
    let square = within_squares(g).powi(2);
    largest().map_or(sum, |largest: T| sum.min(largest * largest - square)) + square
}

/// AdaGO's step for a gradient of norm `n`, clipped already, and the sum of squares up to it.
fn adago_rate<T: Float>(base: &AdaGo, n: T, accumulator: T) -> T {
    let init = real::<T>(base.accumulator_init);
    (real::<T>(base.lr) * n / (init * init + accumulator).sqrt()).max(real(base.floor()))
}

/// Orthogonalises a matrix: X = d / (‖d‖_F + 1e-7), transposed if it is tall, then X ← a X + (b A + c A²) X with
/// A = X Xᵀ, transposed back.
///
/// # Panics
/// If `d` has another length than the matrix.
pub fn newton_schulz<T: Float>(d: &[T], matrix: Matrix, ns: NewtonSchulz) -> Vec<T> {
    let (rows, cols) = (matrix.rows as usize, matrix.cols as usize);
    assert_eq!(d.len(), rows * cols, "a direction has the shape of its matrix");
    let norm = grad_norm([d]);
    let scaled: Vec<T> = if norm.is_finite() {
        let inverse = T::one() / (norm + real(1e-7));
        d.iter().map(|&x| x * inverse).collect()
    } else {
        // The square is beyond the range: that of a smaller one is not.
        let small: Vec<T> = d.iter().map(|&x| x * real(2f64.powi(-96))).collect();
        let inverse = T::one() / grad_norm([&small[..]]);
        small.iter().map(|&x| x * inverse).collect()
    };
    let tall = matrix.is_tall();
    let mut x = if tall { transposed(&scaled, rows, cols) } else { scaled };
    let (m, n) = if tall { (cols, rows) } else { (rows, cols) };
    let [a, b, c] = ns.coefficients.map(real::<T>);
    for _ in 0..ns.steps {
        let gram = product(&x, &transposed(&x, m, n), m, n, m);
        let square = product(&gram, &gram, m, m, m);
        let polynomial: Vec<T> = gram.iter().zip(&square).map(|(&g, &s)| b * g + c * s).collect();
        let moved = product(&polynomial, &x, m, m, n);
        x = x.iter().zip(&moved).map(|(&x, &p)| a * x + p).collect();
    }
    if tall { transposed(&x, m, n) } else { x }
}

fn transposed<T: Float>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])).collect()
}

/// The product of an m × k and a k × n matrix.
fn product<T: Float>(left: &[T], right: &[T], m: usize, k: usize, n: usize) -> Vec<T> {
    let mut result = vec![T::zero(); m * n];
    for (row, out) in left.chunks_exact(k).zip(result.chunks_exact_mut(n)) {
        for (&l, right) in row.iter().zip(right.chunks_exact(n)) {
            out.iter_mut().zip(right).for_each(|(sum, &r)| *sum = *sum + l * r);
        }
    }
    result
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
