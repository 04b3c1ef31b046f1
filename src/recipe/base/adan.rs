//! Adan.

use super::kind::{BaseRow, Direction, EPS, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// Adan (Xie et al., 2022): adaptive moments of the gradient and of its change from step to step.
///
/// ```text
/// d = g − g of the step before              0 in the first step
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) d ;  n ← β3 n + (1−β3) (g + β2 d)²
/// u = (m / c1 + β2 v / c2) / (√n + ε √c3)   c_i = 1 − β_i^t
/// step = lr √c3 ;  decay = lr λ             both over 1 + lr λ, unless `no_prox`
/// ```
///
/// A |g|, or a |g + β2 d|, above 1.84e19 counts as 1.84e19. Rows that [`resized`](crate::GpuOptimizer::resized) adds begin with a gradient of 0
/// before their first.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::Adan;
///
/// assert_eq!(Recipe::from(Adan::new(1e-3).weight_decay(0.02)).mgup().name(), "mgup-adan");
/// ```
///
/// Source: Xie et al. (2208.06677), and their code. They write 1 − β for β.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Adan {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay of the averages of the gradient, of its change, and of the square, each in [0, 1). Default (0.98, 0.92, 0.99).
    #[default([0.98, 0.92, 0.99])]
    pub betas: [f64; 3],
    /// ε: 0, or so large that ε √(1 − β3) is at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether parameters shrink by lr λ of themselves instead of being divided by 1 + lr λ after the step. Default false.
    pub no_prox: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs `no_prox`. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl Adan {
    /// Adan with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for Adan {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "adan",
        shader: "adan",
        states: &[
            StateRow::new("exp_avg"),
            StateRow::new("exp_avg_diff"),
            StateRow::squares("exp_avg_sq"),
            StateRow::new("neg_pre_grad"),
        ],
        correction: "adan",
        needs_f32: Some("it squares the difference of two gradients, of which one is a state"),
        ..BaseRow::ELEMENTWISE
    }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let [beta1, beta2, beta3] = self.betas;
        let [c1, c2, c3] = self.betas.map(|beta| 1.0 - beta.powf(t as f64));
        let decay = self.lr * self.weight_decay;
        let shrunk = if self.no_prox { 1.0 } else { 1.0 + decay };
        StepScalars {
            step: self.lr / shrunk * c3.sqrt(),
            decay: decay / shrunk,
            eps: self.eps * c3.sqrt(),
            beta3,
            blend: [1.0 / c1, beta2 / c2],
            is_first: t == 1,
            ..StepScalars::moments([beta1, beta2])
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)?;
        check_eps_corrected(section, self.eps, &self.betas)?;
        let needs = "false, or `no_prox`";
        ensure_field(section, "cautious_weight_decay", !self.cautious_weight_decay || self.no_prox, needs)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let third = (real::<T>(scalars.beta3), real::<T>(1.0 - scalars.beta3));
        let [m, v, n, previous] = states else { panic!("Adan has four states") };
        for (i, &g) in grad.iter().enumerate() {
            let g = within_squares(g);
            let diff = if scalars.is_first { T::zero() } else { g + previous[i] };
            m[i] = beta1 * m[i] + rest1 * g;
            v[i] = beta2 * v[i] + rest2 * diff;
            second_moment(&mut n[i], third, within_squares(g + beta2 * diff));
            previous[i] = -g;
        }
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, _grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let ([own, change], eps) = (scalars.blend.map(real::<T>), real::<T>(scalars.eps));
        let [m, v, n, _] = states else { panic!("Adan has four states") };
        (0..m.len()).map(|i| (own * m[i] + change * v[i]) / (n[i].sqrt() + eps)).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let ([beta1, beta2], beta3, [own, change]) = (scalars.betas, scalars.beta3, scalars.blend);
        let (diff, diff_size) = match scalars.is_first {
            true => (0.0, 0.0),
            false => (g + states[3], size + states[3].abs()),
        };
        let m = (beta1 * states[0]).abs() + (1.0 - beta1) * size;
        let v = (beta2 * states[1]).abs() + (1.0 - beta2) * diff_size;
        let ahead = g + beta2 * diff;
        let n = beta3 * states[2] + (1.0 - beta3) * ahead * ahead;
        let lost = (1.0 - beta3) * ahead.abs() * (size + beta2 * diff_size) / n.max(f64::MIN_POSITIVE);
        Some(4.0 * EPS * ((own * m + change * v) / (n.sqrt() + scalars.eps) + (2.0 + lost) * u.abs()))
    }
}
