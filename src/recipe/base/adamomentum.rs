//! AdaMomentum.

use super::kind::{BaseRow, Corrects, Direction, EPS, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// AdaMomentum, also AdaM³ (Wang et al., ICDM 2023): the second moment is that of the momentum.
///
/// ```text
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) m² + ε ;  u = m / √v
/// step = lr √c2 / c1 ;  decay = lr λ        c1 = 1 − β1^t, c2 = 1 − β2^t
/// ```
///
/// ε adds up in v, to ε / (1 − β2). A |g| above 1.84e19 counts as 1.84e19. The rectification that the authors' class has by default is
/// left out, as in their experiments on CIFAR.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::AdaMomentum;
///
/// assert_eq!(Recipe::from(AdaMomentum::new(1e-3)).mgup().name(), "mgup-adamomentum");
/// ```
///
/// Source: Wang et al. (2106.11514).
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdaMomentum {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε, finite and at least 2⁻¹²⁶. 0 would divide 0 by 0 where a coordinate never had a gradient. Default 1e-16.
    #[default(1e-16)]
    pub eps: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl AdaMomentum {
    /// AdaMomentum with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for AdaMomentum {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "adamomentum",
        shader: "adamomentum",
        states: &[StateRow::new("exp_avg"), StateRow::squares("exp_avg_sq")],
        needs_f32: Some("its second moment squares the first one, with the error of its rounding"),
        correction: "adam",
        ..BaseRow::ELEMENTWISE
    }];
    type Fallback = Self;

    fn scalars(&self, t: u64) -> StepScalars {
        let [c1, c2] = self.betas.map(|beta| 1.0 - beta.powf(t as f64));
        StepScalars {
            step: self.lr * c2.sqrt() / c1,
            decay: self.lr * self.weight_decay,
            eps: self.eps,
            corrects: Corrects { step: true, ..Corrects::default() },
            ..StepScalars::moments(self.betas)
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)?;
        check(&format!("{section}.eps"), self.eps, POSITIVE)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let eps = real::<T>(scalars.eps);
        let [m, v] = states else { panic!("AdaMomentum has two states") };
        for ((m, v), &g) in m.iter_mut().zip(v).zip(grad) {
            *m = beta1 * *m + rest1 * within_squares(g);
            *v = beta2 * *v + rest2 * (*m * *m) + eps;
        }
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, _scalars: &StepScalars, _grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        states[0].iter().zip(&states[1]).map(|(&m, v)| m / v.sqrt()).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let (m, parts) = (beta1 * states[0] + (1.0 - beta1) * g, (beta1 * states[0]).abs() + (1.0 - beta1) * size);
        let v = beta2 * states[1] + (1.0 - beta2) * m * m + scalars.eps;
        let lost = (1.0 - beta2) * m.abs() * parts / v;
        Some(4.0 * EPS * (parts / v.sqrt() + u.abs() * (2.0 + lost)))
    }
}
