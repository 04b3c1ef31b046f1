//! Base optimizers: which direction to move.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::matrix::Matrix;
use crate::ranges::{
    check, finite, finite_non_negative, normal_or_zero, ns_steps, number, square_in_f32, unit_interval,
};

/// A base optimizer and its hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Base {
    /// Adaptive moments with decoupled weight decay.
    Adamw(AdamW),
    /// The sign of an interpolated momentum.
    Lion(Lion),
    /// Momentum, orthogonalised: for matrices.
    Muon(Muon),
    /// Momentum, orthogonalised, with a rate per matrix that adapts to its gradients' norms.
    Adago(AdaGo),
}

/// AdamW.
///
/// ```text
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// u = m / (√v + ε)        or  m / (√v + ε √c2)   see `eps_placement`
/// step = lr √c2 / c1      c1 = 1 − β1^t, c2 = 1 − β2^t
/// decay = step·λ          or  lr·λ               see `decay_rate`
/// ```
///
/// A larger |g| counts as 1.84e19, because the square of a larger one overflows f32: v stays finite, decays again and bounds the step.
///
/// The defaults follow the MGUP paper (Chang & Yuan, NeurIPS 2025). PyTorch's `AdamW` places ε after the bias
/// correction, decays at the base rate and has `weight_decay` 1e-2: that is [`AdamW::torch`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    pub betas: [f64; 2],
    /// ε: 0, or finite and at least 2⁻¹²⁶. With [`EpsPlacement::AfterBiasCorrection`], ε √(1 − β2) must be too. Default 1e-8. An ε of
    /// 0 divides 0 by 0 where a coordinate never had a gradient, and below about 1e-20 it no longer bounds steps whose g² f32
    /// rounds to 0; both are logged as warnings.
    pub eps: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Where ε is added. Default before the bias correction.
    pub eps_placement: EpsPlacement,
    /// The rate that weight decay follows. Default the bias-corrected one.
    pub decay_rate: DecayRate,
    /// What has a second moment of its own. Default every coordinate.
    #[serde(skip_serializing_if = "SecondMoment::is_default")]
    pub second_moment: SecondMoment,
}

/// Where AdamW adds ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsPlacement {
    /// u = m / (√v + ε): the papers on MGUP, Grams and Cautious optimizers.
    #[default]
    BeforeBiasCorrection,
    /// u = m / (√v + ε √c2): PyTorch.
    AfterBiasCorrection,
}

/// What v of AdamW is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondMoment {
    /// v ← β2 v + (1−β2) g², of every coordinate.
    #[default]
    Coordinate,
    /// v ← β2 v + (1−β2) mean(g²), of every row: what the first dimension of a tensor counts, as a point of a splat or a field. Saves
    /// nearly 4 bytes of memory a parameter, and costs a dispatch a page. Every tensor must fit into a binding.
    Row,
}

impl SecondMoment {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The learning rate that AdamW's weight decay is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayRate {
    /// lr √c2 / c1: the MGUP paper.
    #[default]
    BiasCorrected,
    /// lr: PyTorch, and the MGUP authors' code.
    Base,
}

/// Lion (Chen et al., 2023).
///
/// ```text
/// u = sign(β1 m + (1−β1) g) ;  step = lr ;  decay = lr λ ;  then m ← β2 m + (1−β2) g
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lion {
    /// Learning rate η, ≥ 0 and finite. Default 1e-4.
    pub lr: f64,
    /// Interpolation for the direction and decay of the momentum, each in [0, 1). Default (0.9, 0.99).
    pub betas: [f64; 2],
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
}

/// Muon (Jordan et al., 2024), for matrices; what is no matrix is stepped by `fallback`, see
/// [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  d = (1−μ) g + μ m when `nesterov`, else m
/// O = NewtonSchulz(d) ;  step = lr · scale(rows, cols) ;  decay = lr λ ;  score s = d ⊙ g, before orthogonalisation
/// ```
///
/// The momentum is averaged, as above, not summed as PyTorch's is; Newton–Schulz does not see the difference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Muon {
    /// Learning rate η, ≥ 0 and finite. Default 2e-2.
    pub lr: f64,
    /// μ, in [0, 1). Default 0.95.
    pub momentum: f64,
    /// Whether the direction looks a step ahead. Default true.
    pub nesterov: bool,
    /// Newton–Schulz iterations, 1 to 100. Default 5.
    pub ns_steps: u32,
    /// (a, b, c) of X ← a X + (b A + c A²) X with A = X Xᵀ, finite. The default takes singular values near 1 in five
    /// steps, but not onto it; (2, −1.5, 0.5) converges.
    pub ns_coefficients: [f64; 3],
    /// How the step depends on the shape. Default `original`.
    pub scale: Scale,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// What steps tensors that are no matrices, under the same policy.
    #[serde(with = "fallback")]
    pub fallback: AdamW,
}

/// The factor of Muon's step for a matrix of rows × cols = (out, in).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// √max(1, rows / cols): Jordan et al.
    #[default]
    Original,
    /// 0.2 √max(rows, cols), for learning rates and weight decays of AdamW: Liu et al.
    MatchRmsAdamw,
    /// 1.
    None,
}

/// AdaGO (Zhang et al., 2025), for matrices; what is no matrix is stepped by `fallback`, see
/// [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  n = min(‖g‖_F, clip) ;  a ← a + n², from a₀ = accumulator_init²
/// O = NewtonSchulz(m) ;  step = max(min_step, lr n / √a) ;  decay = lr λ ;  score s = m ⊙ g
/// ```
///
/// Where a schedule or a caller changes the learning rate, `min_step` follows in proportion, so that a rate of 0 moves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaGo {
    /// Learning rate η, ≥ 0 and finite. Default 5e-2.
    pub lr: f64,
    /// μ, in [0, 1). Default 0.95.
    pub momentum: f64,
    /// What a gradient's norm counts at most, and one that is not finite in f32: 1.1e-19 to 1.8e19. Default 10.
    pub clip: f64,
    /// The smallest step at the learning rate `lr`, ≥ 0 and finite. It changes in proportion with the learning rate, and is 0 at a
    /// rate of 0. Default 5e-4.
    pub min_step: f64,
    /// √a before the first step, 1.1e-19 to 1.8e19. Default 1e-6.
    pub accumulator_init: f64,
    /// As in [`Muon::ns_steps`].
    pub ns_steps: u32,
    /// As in [`Muon::ns_coefficients`].
    pub ns_coefficients: [f64; 3],
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// What steps tensors that are no matrices, under the same policy.
    #[serde(with = "fallback")]
    pub fallback: AdamW,
}

/// A fallback reads as a base: `{ "type": "adamw", … }`.
mod fallback {
    use super::AdamW;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Tagged {
        Adamw(AdamW),
    }

    pub(super) fn serialize<S: Serializer>(fallback: &AdamW, to: S) -> Result<S::Ok, S::Error> {
        Tagged::Adamw(*fallback).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<AdamW, D::Error> {
        let Tagged::Adamw(fallback) = Tagged::deserialize(from)?;
        Ok(fallback)
    }
}

/// How a matrix base orthogonalises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewtonSchulz {
    /// Iterations.
    pub steps: u32,
    /// (a, b, c).
    pub coefficients: [f64; 3],
}

/// Smallest ε that bounds the step where g² underflows to 0.
const LEAST_EPS: f64 = 1e-20;

/// The quintic coefficients of Jordan et al.
const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

impl Default for Muon {
    fn default() -> Self {
        Self {
            lr: 2e-2,
            momentum: 0.95,
            nesterov: true,
            ns_steps: 5,
            ns_coefficients: QUINTIC,
            scale: Scale::default(),
            weight_decay: 0.0,
            fallback: AdamW::default(),
        }
    }
}

impl Default for AdaGo {
    fn default() -> Self {
        Self {
            lr: 5e-2,
            momentum: 0.95,
            clip: 10.0,
            min_step: 5e-4,
            accumulator_init: 1e-6,
            ns_steps: 5,
            ns_coefficients: QUINTIC,
            weight_decay: 0.0,
            fallback: AdamW::default(),
        }
    }
}

impl AdaGo {
    /// The smallest step that is taken.
    pub(crate) fn floor(&self) -> f64 {
        if self.lr > 0.0 { self.min_step } else { 0.0 }
    }
}

impl Scale {
    /// The factor for a matrix of `rows` outputs and `cols` inputs.
    pub fn factor(self, rows: u64, cols: u64) -> f64 {
        let (rows, cols) = (rows as f64, cols as f64);
        match self {
            Scale::Original => (rows / cols).max(1.0).sqrt(),
            Scale::MatchRmsAdamw => 0.2 * rows.max(cols).sqrt(),
            Scale::None => 1.0,
        }
    }
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            eps_placement: EpsPlacement::default(),
            decay_rate: DecayRate::default(),
            second_moment: SecondMoment::default(),
        }
    }
}

impl AdamW {
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

impl Default for Lion {
    fn default() -> Self {
        Self { lr: 1e-4, betas: [0.9, 0.99], weight_decay: 0.0 }
    }
}

/// What one step multiplies with: hyper-parameters and bias corrections, computed in f64 on the host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepScalars {
    /// Factor of the direction.
    pub step: f64,
    /// Share of the parameter that weight decay takes away.
    pub decay: f64,
    /// β1 and β2. Of a matrix base, μ for the momentum, and for the direction: μ where it looks ahead, else 1.
    pub betas: [f64; 2],
    /// ε as it is added to √v.
    pub eps: f64,
}

/// Scalars that a bias correction applies to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Corrects {
    pub step: bool,
    pub decay: bool,
    pub eps: bool,
}

impl Base {
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Base::Adamw(b) => b.lr,
            Base::Lion(b) => b.lr,
            Base::Muon(b) => b.lr,
            Base::Adago(b) => b.lr,
        }
    }

    /// The same base with another learning rate. That of a fallback, and the smallest step of AdaGO, change in proportion; they stay
    /// where the old rate is 0.
    pub fn with_lr(mut self, lr: f64) -> Self {
        let old = self.lr();
        if old > 0.0 {
            let ratio = lr / old;
            match &mut self {
                Base::Muon(b) => b.fallback.lr *= ratio,
                Base::Adago(b) => {
                    b.fallback.lr *= ratio;
                    b.min_step *= ratio;
                }
                Base::Adamw(_) | Base::Lion(_) => {}
            }
        }
        match &mut self {
            Base::Adamw(b) => b.lr = lr,
            Base::Lion(b) => b.lr = lr,
            Base::Muon(b) => b.lr = lr,
            Base::Adago(b) => b.lr = lr,
        }
        self
    }

    /// What steps tensors that are no matrices, if this base is for matrices only.
    pub fn fallback(&self) -> Option<Base> {
        match self {
            Base::Muon(Muon { fallback, .. }) | Base::Adago(AdaGo { fallback, .. }) => {
                Some(Base::Adamw(*fallback))
            }
            Base::Adamw(_) | Base::Lion(_) => None,
        }
    }

    /// What the orthogonalised direction of a matrix is scaled by, besides the learning rate, where that follows from its
    /// shape.
    pub(crate) fn rate(&self, matrix: Matrix) -> f64 {
        match self {
            Base::Muon(b) => {
                let (out, inputs) = matrix.out_in();
                b.scale.factor(out, inputs)
            }
            Base::Adago(_) | Base::Adamw(_) | Base::Lion(_) => 1.0,
        }
    }

    /// How it orthogonalises, if it does.
    pub fn newton_schulz(&self) -> Option<NewtonSchulz> {
        match *self {
            Base::Muon(Muon { ns_steps: steps, ns_coefficients: coefficients, .. })
            | Base::Adago(AdaGo { ns_steps: steps, ns_coefficients: coefficients, .. }) => {
                Some(NewtonSchulz { steps, coefficients })
            }
            Base::Adamw(_) | Base::Lion(_) => None,
        }
    }

    /// The scalars of a tensor's step `t`, counted from 1.
    pub fn scalars(&self, t: u64) -> StepScalars {
        match self {
            Base::Adamw(b) => {
                let correction = |beta: f64| 1.0 - beta.powf(t as f64);
                let (c1, root_c2) = (correction(b.betas[0]), correction(b.betas[1]).sqrt());
                let step = b.lr * root_c2 / c1;
                StepScalars {
                    step,
                    decay: b.weight_decay
                        * match b.decay_rate {
                            DecayRate::BiasCorrected => step,
                            DecayRate::Base => b.lr,
                        },
                    betas: b.betas,
                    eps: b.eps
                        * match b.eps_placement {
                            EpsPlacement::BeforeBiasCorrection => 1.0,
                            EpsPlacement::AfterBiasCorrection => root_c2,
                        },
                }
            }
            Base::Lion(b) => {
                StepScalars { step: b.lr, decay: b.lr * b.weight_decay, betas: b.betas, eps: 0.0 }
            }
            Base::Muon(b) => StepScalars {
                step: b.lr,
                decay: b.lr * b.weight_decay,
                betas: [b.momentum, if b.nesterov { b.momentum } else { 1.0 }],
                eps: 0.0,
            },
            // The rate of each matrix takes the place of the step.
            Base::Adago(b) => {
                StepScalars { step: 1.0, decay: b.lr * b.weight_decay, betas: [b.momentum, 1.0], eps: 0.0 }
            }
        }
    }

    /// Which of the scalars depend on the step.
    pub(crate) fn corrects(&self) -> Corrects {
        match self {
            Base::Adamw(b) => Corrects {
                step: true,
                decay: b.decay_rate == DecayRate::BiasCorrected,
                eps: b.eps_placement == EpsPlacement::AfterBiasCorrection,
            },
            Base::Lion(_) | Base::Muon(_) | Base::Adago(_) => Corrects::default(),
        }
    }

    /// Warns of an ε that is allowed and seldom meant.
    pub(crate) fn warn(&self) {
        let adamw = match self {
            Base::Adamw(b) => b,
            Base::Muon(Muon { fallback, .. }) | Base::Adago(AdaGo { fallback, .. }) => fallback,
            Base::Lion(_) => return,
        };
        if adamw.eps == 0.0 {
            log::warn!("eps is 0: a coordinate that never had a gradient becomes NaN");
        } else if adamw.eps < LEAST_EPS {
            log::warn!(
                "eps is {}: gradients below 1e-22, whose square f32 rounds to 0, take large steps; {} or more bounds them",
                number(adamw.eps),
                number(LEAST_EPS)
            );
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let (lr, betas, weight_decay) = match self {
            Base::Adamw(b) => {
                check("base.eps", b.eps, normal_or_zero)?;
                if b.eps_placement == EpsPlacement::AfterBiasCorrection {
                    // As it is in the first step, in which it is smallest.
                    let (first, eps) = (self.scalars(1).eps, b.eps);
                    if normal_or_zero(first).is_some() && (0.0..1.0).contains(&b.betas[1]) {
                        return Err(Error::Recipe {
                            field: "base.eps".to_owned(),
                            value: number(eps),
                            allowed: format!(
                                "0, or so large that eps √(1 − betas[1]), here {}, is at least 2^-126 (1.2e-38)",
                                number(first)
                            ),
                        });
                    }
                }
                (b.lr, b.betas, b.weight_decay)
            }
            Base::Lion(b) => (b.lr, b.betas, b.weight_decay),
            Base::Muon(b) => {
                check("base.momentum", b.momentum, unit_interval)?;
                (b.lr, [0.0; 2], b.weight_decay)
            }
            Base::Adago(b) => {
                check("base.momentum", b.momentum, unit_interval)?;
                check("base.clip", b.clip, square_in_f32)?;
                check("base.min_step", b.min_step, finite_non_negative)?;
                check("base.accumulator_init", b.accumulator_init, square_in_f32)?;
                (b.lr, [0.0; 2], b.weight_decay)
            }
        };
        if let Some(NewtonSchulz { steps, coefficients }) = self.newton_schulz() {
            check("base.ns_steps", steps.into(), ns_steps)?;
            for (i, coefficient) in coefficients.into_iter().enumerate() {
                check(&format!("base.ns_coefficients[{i}]"), coefficient, finite)?;
            }
        }
        if let Some(fallback) = self.fallback() {
            fallback.validate().map_err(|error| error.moved("base", "base.fallback"))?;
        }
        check("base.lr", lr, finite_non_negative)?;
        check("base.betas[0]", betas[0], unit_interval)?;
        check("base.betas[1]", betas[1], unit_interval)?;
        check("base.weight_decay", weight_decay, finite_non_negative)?;
        // What the kernels multiply with, at both ends of the bias corrections.
        for t in [1, u64::MAX] {
            let StepScalars { step, decay, .. } = self.scalars(t);
            check("base.lr, times the bias corrections", step, finite_non_negative)?;
            check("base.lr times base.weight_decay", decay, finite_non_negative)?;
        }
        Ok(())
    }
}
