//! Schedule-free AdamW.

use super::kind::{BaseRow, Direction, EPS, Per, StateRow, StepScalars, Z_OFFSET};
use crate::recipe::prelude::*;

/// Schedule-free AdamW (Defazio et al., 2024): a weighted average of all z so far replaces the momentum and a falling learning rate.
///
/// ```text
/// v ← β2 v + (1−β2) g² ;  u = g / (√(v / c2) + ε)      c2 = 1 − β2^t ; g is taken at θ
/// z ← z − lr (φ u + λ θ)
/// x ← (1−c) x + c z                                    c = weight / Σ weights, weight = t^r · (largest lr so far)^p
/// θ ← β1 x + (1−β1) z
/// ```
///
/// Take gradients at θ, the parameter. Evaluate the model at x: [`GpuOptimizer::evaluate`](crate::GpuOptimizer::evaluate) puts x in the
/// place of θ, and [`train`](crate::GpuOptimizer::train) brings θ back. The state `z_offset` is z − θ, and x follows from it. The state `weight_sum` is
/// the sum of weights divided by the last one. A |g| above
/// 1.84e19 counts as 1.84e19. Use schedules only for warm-up. Every tensor must fit into one binding.
///
/// ```
/// use wgpu_optim::base::ScheduleFreeAdamW;
/// use wgpu_optim::{LrSchedule, ParamGroups, Recipe};
///
/// let recipe = Recipe::from(ScheduleFreeAdamW::new(2.5e-3));
/// let groups = ParamGroups::from(recipe).with_schedule(LrSchedule::constant().with_warmup(100));
/// assert_eq!(recipe.mgup().name(), "mgup-schedule-free-adamw");
/// # assert!(groups.validate().is_ok());
/// ```
///
/// Source: Defazio et al. (2405.15682), and the Python package `schedulefree` 1.4.1, whose defaults these are.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ScheduleFreeAdamW {
    /// Learning rate η, ≥ 0 and finite. Default 2.5e-3.
    #[default(2.5e-3)]
    pub lr: f64,
    /// β1, the share of the average x in θ, at least 1e-6 and less than 1, and β2, the decay of the second moment, in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε: 0, or finite and at least 2⁻¹²⁶; the same holds for ε √(1 − β2). With 0, the direction of a coordinate that never had a gradient
    /// is 0 / 0. Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
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

impl ScheduleFreeAdamW {
    /// Schedule-free AdamW with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

/// The states per tensor of schedule-free bases.
pub(super) const SUM: StateRow = StateRow { name: "weight_sum", per: Per::Tensor, squares: false };
pub(super) const LARGEST: StateRow = StateRow { name: "lr_max", per: Per::Tensor, squares: false };
pub(super) const ROW: BaseRow = BaseRow {
    constants: &["OWN_WEIGHT"],
    rate: Some("schedule_free_rate"),
    averages: true,
    needs_f32: Some("the distance of parameters from their average must be exact"),
    ..BaseRow::ELEMENTWISE
};

/// For the share of the average in the parameter, which is divided by.
pub(super) const AVERAGED: Rule = (|x| (1e-6..1.0).contains(&x), "at least 1e-6 and less than 1");

/// The rules for the weights of the average.
pub(super) fn check_weights(section: &str, r: f64, power: f64) -> Result<()> {
    check(&format!("{section}.r"), r, (|r| (0.0..=10.0).contains(&r), "0 to 10"))?;
    check(&format!("{section}.weight_lr_power"), power, (|p| (0.0..=4.0).contains(&p), "0 to 4"))
}

/// The weight of z in the average: moves the sum of weights and the largest learning rate on, the last two states.
pub(super) fn weight<T: Float>(t: u64, lr: f64, [r, power]: [f64; 2], states: &mut [Vec<T>]) -> Option<T> {
    let [.., sum, largest] = states else { panic!("two states per tensor") };
    let of = |x: T, exponent: f64| if exponent == 0.0 { T::one() } else { x.powf(real(exponent)) };
    let before = largest[0];
    largest[0] = before.max(real(lr));
    if largest[0] == T::zero() && power > 0.0 {
        return Some(T::zero());
    }
    // The weight before over this one.
    let grown = if largest[0] > T::zero() { of(before / largest[0], power) } else { T::one() };
    sum[0] = sum[0] * (of(real((t - 1) as f64 / t as f64), r) * grown) + T::one();
    Some(sum[0].recip())
}

impl Direction for ScheduleFreeAdamW {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "schedule_free_adamw",
        shader: "schedule_free_adamw",
        states: &[StateRow::new(Z_OFFSET), StateRow::squares("exp_avg_sq"), SUM, LARGEST],
        correction: "schedule_free",
        ..ROW
    }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let root = (1.0 - self.betas[1].powf(t as f64)).sqrt();
        StepScalars {
            step: self.lr * root,
            eps: self.eps * root,
            power: self.weight_lr_power,
            lr_decay: self.r,
            ..StepScalars::moments(self.betas)
        }
        .with_decay(self.lr, self.weight_decay, false)
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.betas[0]"), self.betas[0], AVERAGED)?;
        check_betas(section, &self.betas)?;
        check_eps_corrected(section, self.eps, &self.betas)?;
        check_weights(section, self.r, self.weight_lr_power)
    }

    fn average_weight<T: Float>(&self, t: u64, states: &mut [Vec<T>]) -> Option<T> {
        weight(t, self.lr, [self.r, self.weight_lr_power], states)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let ([_, moment], eps) = (scalars.weights::<T>(), real::<T>(scalars.eps));
        let moved = states[1].iter_mut().zip(grad).map(|(v, &g)| {
            let g = within_squares(g);
            second_moment(v, moment, g);
            g / (v.sqrt() + eps)
        });
        moved.collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let v = scalars.betas[1] * states[1] + scalars.rests[1] * g * g;
        Some(4.0 * EPS * (size / (v.sqrt() + scalars.eps) + 2.0 * u.abs()))
    }
}
