//! Lion.

use super::kind::{BaseRow, Direction, EPS, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// Lion (Chen et al., 2023, arXiv 2302.06675): the sign of an interpolated momentum.
///
/// ```text
/// u = sign(β1 m + (1−β1) g) ;  step = lr ;  decay = lr λ ;  then m ← β2 m + (1−β2) g
/// ```
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::Lion;
/// use wgpu_optim::policy::{Cautious, Normalizer};
///
/// let lion = Lion::new(1e-4).betas([0.95, 0.98]).weight_decay(1.0);
/// let recipe = Recipe::new(lion, Cautious::default().normalizer(Normalizer::Count));
/// assert_eq!(recipe.name(), "cautious-lion");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Lion {
    /// Learning rate η, ≥ 0 and finite. Default 1e-4.
    #[default(1e-4)]
    pub lr: f64,
    /// β1 interpolates the direction, and β2 is the decay rate of the momentum, each in [0, 1). Default (0.9, 0.99).
    #[default([0.9, 0.99])]
    pub betas: [f64; 2],
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl Lion {
    /// Lion with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for Lion {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "lion",
        shader: "lion",
        states: &[StateRow::new("exp_avg")],
        recall: Recall::Sign,
        ..BaseRow::ELEMENTWISE
    }];
    type Fallback = Self;

    fn scalars(&self, _: u64) -> StepScalars {
        StepScalars { step: self.lr, decay: self.lr * self.weight_decay, ..StepScalars::moments(self.betas) }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let moments = states[0].iter_mut().zip(grad);
        moments
            .map(|(m, &g)| {
                let interpolated = beta1 * *m + rest1 * g;
                *m = beta2 * *m + rest2 * g;
                if interpolated == T::zero() { T::zero() } else { interpolated.signum() }
            })
            .collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, _]: [f64; 2], _: f64) -> Option<f64> {
        let beta1 = scalars.betas[0];
        let (old, new) = (beta1 * states[0], (1.0 - beta1) * g);
        let parts = old.abs() + new.abs();
        let flips = parts > 0.0 && (old + new).abs() <= 4.0 * EPS * parts;
        (!flips).then_some(0.0)
    }
}
