//! RAdam.

use super::kind::{BaseRow, COUPLED, Direction, EPS, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// RAdam (Liu et al., 2020): Adam whose first steps do not divide by a second moment that few gradients estimate, as PyTorch's `RAdam`.
///
/// ```text
/// g ← g + λ θ                                      unless `decoupled_weight_decay`
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// ρ∞ = 2 / (1−β2) − 1 ;  ρ = ρ∞ − 2 t β2^t / c2    c1 = 1 − β1^t, c2 = 1 − β2^t
/// where ρ > 5:  u = m / (√v + ε) ;  step = lr √c2 / c1 · √((ρ−4)(ρ−2) ρ∞ / ((ρ∞−4)(ρ∞−2) ρ))
/// else:         u = m ;             step = lr / c1
/// decay = lr λ                                     0 where λ is a part of the gradient
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19. The score of an update policy is u times the gradient without λ θ.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::RAdam;
///
/// let recipe = Recipe::from(RAdam::new(1e-3).weight_decay(1e-2)).grams();
/// assert_eq!(recipe.name(), "grams-radam");
/// ```
///
/// Sources: Liu et al. (1908.03265); the documentation of `torch.optim.RAdam`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RAdam {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε: 0, or finite and at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter itself instead of being a part of the gradient. Default false.
    pub decoupled_weight_decay: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs a decoupled weight decay. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl RAdam {
    /// RAdam with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    fn is_coupled(&self) -> bool {
        !self.decoupled_weight_decay && self.weight_decay > 0.0
    }
}

const ROW: BaseRow = BaseRow {
    name: "radam",
    shader: "radam",
    states: &[StateRow::new("exp_avg"), StateRow::squares("exp_avg_sq")],
    correction: "radam",
    ..BaseRow::ELEMENTWISE
};

impl Direction for RAdam {
    const ROWS: &'static [BaseRow] = &[ROW, BaseRow { name: "radam (coupled)", constants: &[COUPLED], ..ROW }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn variants(&self) -> Vec<Self> {
        let own = Self::default().decoupled();
        vec![own, own.weight_decay(1e-2).decoupled_weight_decay(false)]
    }

    fn decoupled(self) -> Self {
        Self { decoupled_weight_decay: true, ..self }
    }

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[usize::from(self.is_coupled())]
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let (t, [beta1, beta2]) = (t as f64, self.betas);
        let (c1, c2) = (1.0 - beta1.powf(t), 1.0 - beta2.powf(t));
        let longest = 2.0 / (1.0 - beta2) - 1.0;
        let rho = longest - 2.0 * t * beta2.powf(t) / c2;
        let adaptive = rho > 5.0;
        let rectified = ((rho - 4.0) * (rho - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * rho)).sqrt();
        StepScalars {
            step: self.lr / c1 * if adaptive { c2.sqrt() * rectified } else { 1.0 },
            eps: self.eps,
            adaptive,
            rho: [longest, longest - 2.0 / -beta2.max(1e-300).ln()],
            ..StepScalars::moments(self.betas)
        }
        .with_decay(self.lr, self.weight_decay, self.is_coupled())
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)?;
        check_eps(section, self.eps)?;
        check_cautious(section, self.cautious_weight_decay && self.is_coupled())
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), moment] = scalars.weights::<T>();
        let [m, v] = states else { panic!("RAdam has two states") };
        for ((m, v), &g) in m.iter_mut().zip(v).zip(grad) {
            let g = within_squares(g);
            *m = beta1 * *m + rest1 * g;
            second_moment(v, moment, g);
        }
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, _grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let eps = real::<T>(scalars.eps);
        let moments = states[0].iter().zip(&states[1]);
        moments.map(|(&m, v)| if scalars.adaptive { m / (v.sqrt() + eps) } else { m }).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let parts = (beta1 * states[0]).abs() + (1.0 - beta1) * size;
        let v = beta2 * states[1] + (1.0 - beta2) * g * g;
        let denominator = if scalars.adaptive { v.sqrt() + scalars.eps } else { 1.0 };
        Some(4.0 * EPS * (parts / denominator + 2.0 * u.abs()))
    }
}
