//! LaMAdam.

use super::kind::{BaseRow, Direction, EPS, OWN_STEP, Per, StateRow, StepScalars};
use super::madam::{Moments, ROW, STATES};
use crate::recipe::prelude::*;

/// LaMAdam (Zhu et al., 2021): [`MAdam`](super::MAdam) that divides each gradient by √(q + a²) before the momentum averages it.
///
/// ```text
/// a, q, w as in MAdam
/// u ← μ u + (1−μ) lr g / (√(q + a²) + ε)
/// ρ ← μ ρ + (1−μ) lr                             one number per tensor
/// step = lr / ρ ;  decay = lr λ                  step = 0 where ρ = 0
/// ```
///
/// u and ρ include the learning rate, so a change of the rate takes effect gradually. With a constant rate, ρ is lr (1 − μ^t). A |g| above
/// 9.2e18 counts as 9.2e18. Every tensor must fit into half of one binding.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::LaMAdam;
///
/// assert_eq!(Recipe::from(LaMAdam::new(1e-3).betas([0.9, 0.99])).mgup().name(), "mgup-lamadam");
/// ```
///
/// Source: the code of Zhu et al. (2006.11918).
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LaMAdam {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay μ of the momentum, and the largest decay of mean and variance, each in [0, 1). Default (0.9, 0.98).
    #[default([0.9, 0.98])]
    pub betas: [f64; 2],
    /// The smallest decay of mean and variance, in [0, betas\[1\]]. Default 0.5.
    #[default(0.5)]
    pub beta2_min: f64,
    /// ε: 0, or finite and at least 2⁻¹²⁶. With 0, the direction of a coordinate that never had a gradient is 0 / 0. Default 1e-15.
    #[default(1e-15)]
    pub eps: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl LaMAdam {
    /// LaMAdam with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for LaMAdam {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "lamadam",
        states: {
            let [m, mean, variance, weight] = STATES;
            &[m, mean, variance, weight, StateRow { name: "lr_avg", per: Per::Tensor, squares: false }]
        },
        constants: &["NORMALIZES_FIRST", OWN_STEP],
        rate: Some("lamadam_rate"),
        ..ROW
    }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn scalars(&self, _t: u64) -> StepScalars {
        let [beta1, beta2] = self.betas;
        StepScalars {
            step: self.lr,
            eps: self.eps,
            betas: [beta1, 0.0],
            rests: [1.0 - beta1, 1.0 - beta2],
            largest_rest: 1.0 - self.beta2_min,
            ..StepScalars::default()
        }
        .with_decay(self.lr, self.weight_decay, false)
    }

    fn validate(&self, section: &str) -> Result<()> {
        super::madam::validate(section, self.betas, self.beta2_min, self.eps)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let (lr, [(mu, rest), _]) = (real::<T>(self.lr), scalars.weights::<T>());
        let [m, moments @ ..] = states else { panic!("LaMAdam has five states") };
        let moments = Moments::advance(scalars, grad, moments);
        for (m, (g, root)) in m.iter_mut().zip(moments) {
            *m = mu * *m + rest * (lr * (g / (root + real(scalars.eps))));
        }
        m.clone()
    }

    fn tensor_rate<T: Float>(&self, scalars: &StepScalars, _: [&[T]; 3], states: &mut [Vec<T>]) -> T {
        let [(mu, rest), _] = scalars.weights::<T>();
        let average = &mut states[4][0];
        *average = mu * *average + rest * real(self.lr);
        if *average > T::zero() { average.recip() } else { T::zero() }
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], _u: f64) -> Option<f64> {
        let (least_root, error) = Moments::error(scalars, states, g);
        let least = least_root + scalars.eps;
        let part = scalars.rests[0] * self.lr * size / least;
        Some(4.0 * EPS * ((scalars.betas[0] * states[0]).abs() + 2.0 * part) + part * error / least)
    }
}
