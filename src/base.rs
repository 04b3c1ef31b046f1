//! Base optimizers: which direction to move.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ranges::{check, finite_non_negative, unit_interval};

/// A base optimizer and its hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Base {
    /// Adaptive moments with decoupled weight decay.
    Adamw(AdamW),
    /// The sign of an interpolated momentum.
    Lion(Lion),
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
/// The defaults follow the MGUP paper (Chang & Yuan, NeurIPS 2025). PyTorch's `AdamW` places ε after the bias
/// correction, decays at the base rate and has `weight_decay` 1e-2: that is [`AdamW::torch`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    pub betas: [f64; 2],
    /// ε, ≥ 0 and finite. 0, which every value below 2⁻¹²⁶ may count as, divides 0 by 0 where a coordinate never had a
    /// gradient. Default 1e-8.
    pub eps: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Where ε is added. Default before the bias correction.
    pub eps_placement: EpsPlacement,
    /// The rate that weight decay follows. Default the bias-corrected one.
    pub decay_rate: DecayRate,
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

impl Default for AdamW {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            eps_placement: EpsPlacement::default(),
            decay_rate: DecayRate::default(),
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
    /// β1 and β2.
    pub betas: [f64; 2],
    /// ε as it is added to √v.
    pub eps: f64,
}

impl Base {
    /// The learning rate.
    pub fn lr(&self) -> f64 {
        match self {
            Base::Adamw(b) => b.lr,
            Base::Lion(b) => b.lr,
        }
    }

    /// The same base with another learning rate.
    pub fn with_lr(mut self, lr: f64) -> Self {
        match &mut self {
            Base::Adamw(b) => b.lr = lr,
            Base::Lion(b) => b.lr = lr,
        }
        self
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
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let (lr, betas, weight_decay) = match self {
            Base::Adamw(b) => {
                check("base.eps", b.eps, finite_non_negative)?;
                (b.lr, b.betas, b.weight_decay)
            }
            Base::Lion(b) => (b.lr, b.betas, b.weight_decay),
        };
        check("base.lr", lr, finite_non_negative)?;
        check("base.betas[0]", betas[0], unit_interval)?;
        check("base.betas[1]", betas[1], unit_interval)?;
        check("base.weight_decay", weight_decay, finite_non_negative)
    }
}
