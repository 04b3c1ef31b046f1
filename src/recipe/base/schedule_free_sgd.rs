//! Schedule-free SGD.

use super::kind::{BaseRow, Direction, StateRow, StepScalars, Z_OFFSET};
use super::schedule_free_adamw::{AVERAGED, LARGEST, ROW, SUM, check_weights, weight};
use crate::recipe::prelude::*;

/// Schedule-free SGD (Defazio et al., 2024): [`ScheduleFreeAdamW`](super::ScheduleFreeAdamW) whose direction is the gradient.
///
/// ```text
/// u = g, taken at θ
/// z ← z − lr (φ u + λ θ) ;  x ← (1−c) x + c z ;  θ ← β1 x + (1−β1) z      c as in `ScheduleFreeAdamW`, β1 = momentum
/// ```
///
/// Evaluate the model at x, with [`GpuOptimizer::evaluate`](crate::GpuOptimizer::evaluate). Every tensor must fit into one binding.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::ScheduleFreeSgd;
///
/// assert_eq!(Recipe::from(ScheduleFreeSgd::new(1.0).momentum(0.95)).name(), "schedule-free-sgd");
/// ```
///
/// Source: Defazio et al. (2405.15682), and the Python package `schedulefree` 1.4.1, whose defaults these are.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScheduleFreeSgd {
    /// Learning rate η, ≥ 0 and finite. Default 1.
    #[default(1.0)]
    pub lr: f64,
    /// β1, the share of the average x in θ, at least 1e-6 and less than 1. Default 0.9.
    #[default(0.9)]
    pub momentum: f64,
    /// r, the exponent of t in the weights of the average, 0 to 10. Default 0.
    pub r: f64,
    /// p, the exponent of the largest learning rate so far in the weights of the average, 0 to 4. Default 2.
    #[default(2.0)]
    pub weight_lr_power: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl ScheduleFreeSgd {
    /// Schedule-free SGD with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for ScheduleFreeSgd {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "schedule_free_sgd",
        // Its direction is the gradient.
        shader: "sgd",
        states: &[StateRow::new(Z_OFFSET), SUM, LARGEST],
        ..ROW
    }];
    type Fallback = Self;

    fn scalars(&self, _t: u64) -> StepScalars {
        StepScalars {
            step: self.lr,
            power: self.weight_lr_power,
            lr_decay: self.r,
            ..StepScalars::moments([self.momentum, 0.0])
        }
        .with_decay(self.lr, self.weight_decay, false)
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.momentum"), self.momentum, AVERAGED)?;
        check_weights(section, self.r, self.weight_lr_power)
    }

    fn average_weight<T: Float>(&self, t: u64, states: &mut [Vec<T>]) -> Option<T> {
        weight(t, self.lr, [self.r, self.weight_lr_power], states)
    }

    fn advance<T: Float>(&self, _scalars: &StepScalars, grad: &[T], _states: &mut [Vec<T>]) -> Vec<T> {
        grad.to_vec()
    }

    fn direction_error(&self, _scalars: &StepScalars, _states: &[f64], _g: [f64; 2], _u: f64) -> Option<f64> {
        Some(0.0)
    }
}
