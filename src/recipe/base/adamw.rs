//! AdamW.

use super::kind::{BaseRow, Corrects, Direction, EPS, Per, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// AdamW (Loshchilov & Hutter, 2019, arXiv 1711.05101): adaptive moments with decoupled weight decay.
///
/// ```text
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// u = m / (√v + ε)        or  m / (√v + ε √c2)   see `eps_placement`
///                         or  m / (√v + ε)^(2p)  see `power`
/// step = lr √c2 / c1      c1 = 1 − β1^t, c2 = 1 − β2^t
/// decay = step·λ          or  lr·λ               see `decay_rate`
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19, because f32 cannot hold its square. So v stays finite, decays again and bounds the step. The maximum of
/// `amsgrad` does not decay.
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
    /// Whether v in the direction is its largest value so far (AMSGrad, Reddi et al., 2018). That value is not bias-corrected before it is
    /// compared. Takes 4 more bytes per parameter, and second moments per coordinate. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub amsgrad: bool,
    /// p, in (0, 0.5]. Below 0.5 this is Padam (Chen et al., 2020), whose authors take 0.125 to 0.25 with `amsgrad` and a learning rate of
    /// 0.1. Needs second moments per coordinate. Default 0.5.
    #[default(0.5)]
    #[serde(skip_serializing_if = "is_half")]
    pub power: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0 (Chen et al., 2025). Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
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
    /// Saves 4 bytes of memory per parameter, and costs 4 per row and one dispatch per page. Every tensor must fit into one binding.
    Row,
}

fn is_half(power: &f64) -> bool {
    *power == 0.5
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
}

const M: StateRow = StateRow::new("exp_avg");
const V: StateRow = StateRow::squares("exp_avg_sq");
const LARGEST: StateRow = StateRow::squares("max_exp_avg_sq");
pub(super) const ROW: BaseRow =
    BaseRow { name: "adamw", shader: "adamw", states: &[M, V], correction: "adam", ..BaseRow::ELEMENTWISE };
pub(super) const AMSGRAD: BaseRow = BaseRow {
    name: "adamw (amsgrad)",
    states: &[M, V, LARGEST],
    constants: &["AMSGRAD"],
    needs_f32: Some("the largest second moment so far never falls, so that roundings up would add up"),
    ..ROW
};

impl Direction for AdamW {
    const ROWS: &'static [BaseRow] = &[
        ROW,
        BaseRow { name: "adamw (rows)", states: &[M, StateRow { per: Per::Row, ..V }], constants: &["BY_ROW"], ..ROW },
        AMSGRAD,
        BaseRow { name: "adamw (power)", constants: &["POWER"], ..ROW },
        BaseRow { name: "adamw (amsgrad, power)", constants: &["AMSGRAD", "POWER"], ..AMSGRAD },
    ];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn variants(&self) -> Vec<Self> {
        let own = Self::default();
        let by_row = own.second_moment(SecondMoment::Row);
        vec![own, by_row, own.amsgrad(true), own.power(0.25), own.amsgrad(true).power(0.25)]
    }

    fn row(&self) -> &'static BaseRow {
        match self.second_moment {
            SecondMoment::Row => &Self::ROWS[1],
            SecondMoment::Coordinate => match (self.amsgrad, self.power < 0.5) {
                (false, false) => &Self::ROWS[0],
                (true, false) => &Self::ROWS[2],
                (false, true) => &Self::ROWS[3],
                (true, true) => &Self::ROWS[4],
            },
        }
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
            eps: self.eps * if corrects.eps { c2.sqrt() } else { 1.0 },
            power: 2.0 * self.power,
            corrects,
            ..StepScalars::moments(self.betas)
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)?;
        match self.eps_placement {
            EpsPlacement::BeforeBiasCorrection => check_eps(section, self.eps)?,
            EpsPlacement::AfterBiasCorrection => check_eps_corrected(section, self.eps, &self.betas)?,
        }
        check(&format!("{section}.power"), self.power, (|p| p > 0.0 && p <= 0.5, "in (0, 0.5]"))?;
        let by_row = self.second_moment == SecondMoment::Row;
        let needs = "false, or second moments per coordinate";
        ensure_field(section, "amsgrad", !(by_row && self.amsgrad), needs)?;
        let per_row: Rule = (|p| p == 0.5, "0.5 with second moments per row");
        if by_row { check(&format!("{section}.power"), self.power, per_row) } else { Ok(()) }
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), (beta2, rest2)] = scalars.weights::<T>();
        let [m, v, largest @ ..] = states else { panic!("AdamW has two states or three") };
        let row_len = (grad.len() / v.len().max(1)).max(1);
        for (v, row) in v.iter_mut().zip(grad.chunks(row_len)) {
            let squares = row.iter().fold(T::zero(), |sum, &g| add_square(sum, g));
            *v = beta2 * *v + rest2 * (squares / real(row_len as f64));
        }
        if let [largest, ..] = largest {
            largest.iter_mut().zip(&*v).for_each(|(largest, v)| *largest = largest.max(*v));
        }
        m.iter_mut().zip(grad).for_each(|(m, &g)| *m = beta1 * *m + rest1 * within_squares(g));
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let (eps, power) = (real::<T>(scalars.eps), real::<T>(scalars.power));
        let v = &states[states.len() - 1];
        let row_len = (grad.len() / v.len().max(1)).max(1);
        let divided = states[0].iter().enumerate().map(|(i, &m)| {
            let denominator = v[i / row_len].sqrt() + eps;
            m / if power < T::one() { denominator.powf(power) } else { denominator }
        });
        divided.collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let [beta1, beta2] = scalars.betas;
        let parts = (beta1 * states[0]).abs() + (1.0 - beta1) * size;
        let v = (beta2 * states[1] + (1.0 - beta2) * g * g).max(states.get(2).copied().unwrap_or(0.0));
        let denominator = v.sqrt() + scalars.eps;
        // GPUs compute powers as exp2(p log2(x)), where the logarithm is off by a few units.
        let powers = if scalars.power < 1.0 { 8.0 + 2.0 * denominator.log2().abs() } else { 0.0 };
        Some(4.0 * EPS * (parts / denominator.powf(scalars.power) + (2.0 + powers) * u.abs()))
    }
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
