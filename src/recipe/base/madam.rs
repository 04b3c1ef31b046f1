//! MAdam.

use super::kind::{BaseRow, Corrects, Direction, EPS, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// MAdam (Zhu et al., 2021): each coordinate chooses, between two bounds, the decay of its averages that makes their variance largest.
///
/// ```text
/// δ = g − a ;  T = δ² + q                    a, q, w: mean, variance and sum of weights, 0 at first
/// β = T / (w (δ² − q) + T + 1e-16)           at least beta2_min, at most β2; β2 in the first step
/// w ← β w + 1 − β ;  h = (1−β) / w ;  a ← a + h δ ;  q ← (1−h) (q + h δ²)
/// m ← β1 m + (1−β1) g ;  u = m / (√(q + a²) + ε)
/// step = lr / c1 ;  decay = lr λ             c1 = 1 − β1^t
/// ```
///
/// The authors keep weighted sums of g and g² instead of a mean and a variance. It is the same algebra, but in f32 their variance cancels.
/// A |g| above 9.2e18 counts as 9.2e18.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::MAdam;
///
/// assert_eq!(Recipe::from(MAdam::new(1e-3).beta2_min(0.9)).mgup().name(), "mgup-madam");
/// ```
///
/// Source: Zhu et al. (2006.11918), and their code.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MAdam {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay of the momentum, and the largest decay of mean and variance, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// The smallest decay of mean and variance, in [0, β2]. Default 0.5.
    #[default(0.5)]
    pub beta2_min: f64,
    /// ε: 0, or finite and at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl MAdam {
    /// MAdam with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

/// Keeps a share from 0 / 0, as in the authors' code.
const TINY: f64 = 1e-16;

/// The states of MAdam and LaMAdam per coordinate.
pub(super) const STATES: [StateRow; 4] =
    [StateRow::new("exp_avg"), StateRow::new("mean"), StateRow::squares("variance"), StateRow::new("weight")];

/// Why their states must be f32.
const NEEDS_F32: &str = "its decay follows from differences of states that are nearly equal";

/// The rules for the fields that MAdam and LaMAdam share.
pub(super) fn validate(section: &str, betas: [f64; 2], beta2_min: f64, eps: f64) -> Result<()> {
    check_betas(section, &betas)?;
    check_eps(section, eps)?;
    let field = format!("{section}.beta2_min");
    check(&field, beta2_min, UNIT)?;
    if beta2_min > betas[1] {
        let allowed = format!("at most betas[1], here {}", number(betas[1]));
        return Err(Error::Recipe { field, value: number(beta2_min), allowed });
    }
    Ok(())
}

/// Mean and variance with a decay of their own for each coordinate.
pub(super) struct Moments;

impl Moments {
    /// Moves mean, variance and weight on. Returns the gradients as they count, and √(q + a²).
    pub(super) fn advance<T: Float>(scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<(T, T)> {
        let [_, (_, least)] = scalars.weights::<T>();
        let (most, tiny) = (real::<T>(scalars.largest_rest), real::<T>(TINY));
        let [mean, variance, weight, ..] = states else { panic!("three moments") };
        let moved = grad.iter().enumerate().map(|(i, &g)| {
            let g = within_squares(g + g) / (T::one() + T::one());
            let (w, q) = (weight[i], variance[i]);
            let delta = g - mean[i];
            let square = delta * delta;
            // 1 − β, which does not cancel.
            let gain = w * (square - q) + tiny;
            let free = (gain / (gain + square + q)).max(least).min(most);
            let rest = if w > T::zero() { free } else { least };
            weight[i] = w + rest * (T::one() - w);
            let h = rest / weight[i];
            mean[i] = mean[i] + h * delta;
            variance[i] = (T::one() - h) * (q + h * square);
            (g, (variance[i] + mean[i] * mean[i]).sqrt())
        });
        moved.collect()
    }

    /// The least √(q + a²) that rounding in f32 may give, and the error of this root, from the states before the step.
    pub(super) fn error(scalars: &StepScalars, states: &[f64], g: f64) -> (f64, f64) {
        let [a, q, w] = [1, 2, 3].map(|i| states[i]);
        let delta = g - a;
        let square = delta * delta;
        let gain = w * (square - q) + TINY;
        let (least, most) = (scalars.rests[1], scalars.largest_rest);
        let rest = if w > 0.0 { (gain / (gain + square + q)).max(least).min(most) } else { least };
        let weight = w + rest * (1.0 - w);
        let h = rest / weight;
        // The share is off by a few roundings of 1, not of itself.
        let h_error = 8.0 * EPS * (h + if rest > least && rest < most { 1.0 / weight } else { 0.0 });
        let mean = a + h * delta;
        let mean_error = h_error * delta.abs() + 4.0 * EPS * (a.abs() + h * (g.abs() + a.abs()));
        let lost = h_error * (q + 2.0 * square) + 2.0 * h * delta.abs() * EPS * (g.abs() + a.abs());
        let squares = (1.0 - h).max(0.0) * (q + h * square) + mean * mean;
        let error = lost + 4.0 * EPS * squares + 2.0 * mean.abs() * mean_error + mean_error * mean_error;
        ((squares - error).max(0.0).sqrt(), error / (2.0 * squares.sqrt().max(f64::MIN_POSITIVE)))
    }
}

/// The row of MAdam and LaMAdam, except name, states and correction.
pub(super) const ROW: BaseRow = BaseRow { shader: "madam", needs_f32: Some(NEEDS_F32), ..BaseRow::ELEMENTWISE };

impl Direction for MAdam {
    const ROWS: &'static [BaseRow] = &[BaseRow { name: "madam", states: &STATES, correction: "adam", ..ROW }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let [beta1, beta2] = self.betas;
        StepScalars {
            step: self.lr / (1.0 - beta1.powf(t as f64)),
            decay: self.lr * self.weight_decay,
            eps: self.eps,
            // Only the momentum has a bias correction.
            betas: [beta1, 0.0],
            rests: [1.0 - beta1, 1.0 - beta2],
            largest_rest: 1.0 - self.beta2_min,
            corrects: Corrects { step: true, ..Corrects::default() },
            ..StepScalars::default()
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        validate(section, self.betas, self.beta2_min, self.eps)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let ([(beta1, rest1), _], eps) = (scalars.weights::<T>(), real::<T>(scalars.eps));
        let [m, moments @ ..] = states else { panic!("MAdam has four states") };
        let moments = Moments::advance(scalars, grad, moments);
        let moved = m.iter_mut().zip(moments).map(|(m, (g, root))| {
            *m = beta1 * *m + rest1 * g;
            *m / (root + eps)
        });
        moved.collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let (root, root_error) = Moments::error(scalars, states, g);
        let least_root = root + scalars.eps;
        let parts = (scalars.betas[0] * states[0]).abs() + scalars.rests[0] * size;
        Some(4.0 * EPS * (parts / least_root + 2.0 * u.abs()) + u.abs() * root_error / least_root)
    }
}
