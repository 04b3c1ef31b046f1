//! AdamW.

use super::kind::{BaseRow, Corrects, Direction, EPS, Per, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101): adaptive moments with decoupled weight decay.
///
/// ```text
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// u = m / (√v + ε)        or  m / (√v + ε √c2)   see `eps_placement`
/// step = lr √c2 / c1      c1 = 1 − β1^t, c2 = 1 − β2^t
/// decay = step·λ          or  lr·λ               see `decay_rate`
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19, because f32 cannot hold its square. So v stays finite, decays again and bounds the step.
///
/// The defaults follow the MGUP paper (Chang & Yuan, NeurIPS 2025). PyTorch's `AdamW` places ε after the bias
/// correction, decays at the base rate and has `weight_decay` 1e-2: that is [`AdamW::torch`].
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::{AdamW, DecayRate, EpsPlacement, SecondMoment};
///
/// let like_torch = AdamW::new(1e-3)
///     .betas([0.9, 0.999])
///     .eps_placement(EpsPlacement::AfterBiasCorrection)
///     .decay_rate(DecayRate::Base)
///     .weight_decay(0.01);
/// assert_eq!(like_torch, AdamW::torch());
/// // Half of the state, for large matrices.
/// let small = Recipe::from(AdamW::new(1e-3).second_moment(SecondMoment::Row)).mgup();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdamW {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay rates β1 and β2 of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε: 0, or finite and at least 2⁻¹²⁶. With [`EpsPlacement::AfterBiasCorrection`], the same holds for ε √(1 − β2). Default 1e-8.
    ///
    /// Two values log a warning. An ε of 0 divides 0 by 0 where a coordinate never had a gradient. An ε below about 1e-20 no longer
    /// bounds steps whose g² f32 rounds to 0.
    #[default(1e-8)]
    pub eps: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Where ε is added. Default: before the bias correction.
    pub eps_placement: EpsPlacement,
    /// The learning rate that λ is multiplied by. Default: the bias-corrected one.
    pub decay_rate: DecayRate,
    /// Whether coordinates or rows have their own second moment. Default: coordinates.
    #[serde(skip_serializing_if = "is_per_coordinate")]
    pub second_moment: SecondMoment,
}

/// Where AdamW adds ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EpsPlacement {
    /// u = m / (√v + ε): the papers on MGUP, Grams and Cautious optimizers.
    #[default]
    BeforeBiasCorrection,
    /// u = m / (√v + ε √c2): PyTorch.
    AfterBiasCorrection,
}

/// What has its own second moment v under AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SecondMoment {
    /// Each coordinate: v ← β2 v + (1−β2) g².
    #[default]
    Coordinate,
    /// Each row: v ← β2 v + (1−β2) mean(g²). The first dimension of a tensor counts rows, such as the points of a splat or a field.
    ///
    /// Saves 4 bytes of memory per parameter, and costs 4 per row and one dispatch per page. Every tensor must fit into one binding. Not
    /// for [`GpuOptimizer::stateless`](crate::GpuOptimizer::stateless).
    Row,
}

fn is_per_coordinate(moment: &SecondMoment) -> bool {
    *moment == SecondMoment::Coordinate
}

/// The learning rate that AdamW's weight decay is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DecayRate {
    /// lr √c2 / c1: the MGUP paper.
    #[default]
    BiasCorrected,
    /// lr: PyTorch, and the MGUP authors' code.
    Base,
}

impl AdamW {
    /// AdamW with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    /// PyTorch's `AdamW`: ε after the bias correction, decay at the base rate, `weight_decay` 1e-2.
    pub fn torch() -> Self {
        Self {
            weight_decay: 1e-2,
            eps_placement: EpsPlacement::AfterBiasCorrection,
            decay_rate: DecayRate::Base,
            ..Self::default()
        }
    }

    /// Logs warnings about values that are allowed and seldom meant.
    pub(super) fn warn(&self) {
        let (eps, least) = (number(self.eps), number(LEAST_EPS));
        if self.eps == 0.0 {
            log::warn!("eps is 0: a coordinate that never had a gradient becomes NaN; {least} or more avoids this");
        } else if self.eps < LEAST_EPS {
            log::warn!(
                "eps is {eps}: gradients below 1e-22, whose square f32 rounds to 0, take large steps; {least} or more bounds them"
            );
        }
    }
}

/// Smallest ε that bounds the step where g² underflows to 0.
const LEAST_EPS: f64 = 1e-20;

const M: StateRow = StateRow { name: "exp_avg", per: Per::Coordinate, squares: false };
const V: StateRow = StateRow { name: "exp_avg_sq", per: Per::Coordinate, squares: true };
const ROW: BaseRow = BaseRow { name: "adamw", shader: "adamw", states: &[M, V], recall: Recall::State, rate: None };

impl Direction for AdamW {
    const ROWS: &'static [BaseRow] =
        &[ROW, BaseRow { name: "adamw (rows)", states: &[M, StateRow { per: Per::Row, ..V }], ..ROW }];
    type Fallback = Self;

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[usize::from(self.second_moment == SecondMoment::Row)]
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let [c1, c2] = self.betas.map(|beta| 1.0 - beta.powf(t as f64));
        let step = self.lr * c2.sqrt() / c1;
        let corrects = Corrects {
            step: true,
            decay: self.decay_rate == DecayRate::BiasCorrected,
            eps: self.eps_placement == EpsPlacement::AfterBiasCorrection,
        };
        StepScalars {
            step,
            decay: self.weight_decay * if corrects.decay { step } else { self.lr },
            betas: self.betas,
            eps: self.eps * if corrects.eps { c2.sqrt() } else { 1.0 },
            corrects,
            ..StepScalars::default()
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        let field = format!("{section}.eps");
        check(&field, self.eps, NORMAL_OR_ZERO)?;
        // The bias correction may move ε. The first step has the smallest.
        let first = self.scalars(1).eps;
        if NORMAL_OR_ZERO.0(first) || !UNIT.0(self.betas[1]) {
            return Ok(());
        }
        let first = number(first);
        let allowed = format!("0, or so large that eps √(1 − betas[1]), here {first}, is at least 2^-126 (1.2e-38)");
        Err(Error::Recipe { field, value: number(self.eps), allowed })
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let eps = real::<T>(scalars.eps);
        let [m, v] = states else { panic!("AdamW has two states") };
        let row_len = (grad.len() / v.len().max(1)).max(1);
        for (v, row) in v.iter_mut().zip(grad.chunks(row_len)) {
            let squares = row.iter().fold(T::zero(), |sum, &g| add_square(sum, g));
            *v = beta2 * *v + rest2 * (squares / real(row_len as f64));
        }
        let moments = m.iter_mut().zip(grad).enumerate();
        moments
            .map(|(i, (m, &g))| {
                *m = beta1 * *m + rest1 * within_squares(g);
                *m / (v[i / row_len].sqrt() + eps)
            })
            .collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], g: f64, u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let parts = (beta1 * states[0]).abs() + ((1.0 - beta1) * g).abs();
        let v = beta2 * states[1] + (1.0 - beta2) * g * g;
        Some(4.0 * EPS * (parts / (v.sqrt() + scalars.eps) + 2.0 * u.abs()))
    }
}

/// The largest |g| whose square f32 holds, if `T` is f32.
fn largest<T: Float>() -> Option<T> {
    T::from(1.84e19).filter(|_| T::max_value() <= real(f32::MAX.into()))
}

fn within_squares<T: Float>(g: T) -> T {
    largest().filter(|&largest| g.abs() > largest).map_or(g, |largest| largest.copysign(g))
}

/// The sum of squares with one more, at most the square of the largest. So a second moment stays finite and decays again.
fn add_square<T: Float>(sum: T, g: T) -> T {
    let square = within_squares(g).powi(2);
    largest().map_or(sum, |largest: T| sum.min(largest * largest - square)) + square
}

/// AdamW as a field of another base, in JSON with its type: `{ "type": "adamw", … }`.
pub(super) mod tagged {
    use super::AdamW;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Tagged {
        Adamw(AdamW),
    }

    pub(crate) fn serialize<S: Serializer>(fallback: &AdamW, to: S) -> Result<S::Ok, S::Error> {
        Tagged::Adamw(*fallback).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AdamW, D::Error> {
        let Tagged::Adamw(fallback) = Tagged::deserialize(from)?;
        Ok(fallback)
    }
}
