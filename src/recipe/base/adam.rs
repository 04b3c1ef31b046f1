//! Adam.

use super::adamw::{AdamW, DecayRate, EpsPlacement};
use super::kind::{BaseRow, COUPLED, Direction, StepScalars};
use crate::recipe::prelude::*;

/// Adam (Kingma & Ba, 2015) with weight decay in the gradient, as PyTorch's `Adam`. For a decoupled weight decay, use [`AdamW`].
///
/// ```text
/// g ← g + λ θ
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// u = m / (√v + ε √c2) ;  step = lr √c2 / c1      c1 = 1 − β1^t, c2 = 1 − β2^t
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19. The score of an update policy is u times the gradient without λ θ.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::Adam;
///
/// let recipe = Recipe::from(Adam::new(1e-3).weight_decay(1e-4)).mgup();
/// assert_eq!(recipe.name(), "mgup-adam");
/// ```
///
/// Sources: Kingma & Ba (1412.6980); Reddi et al. (1904.09237) for `amsgrad`; the documentation of `torch.optim.Adam`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Adam {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε: 0, or so large that ε √(1 − β2) is at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// λ, a part of the gradient, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether to divide by the largest second moment so far, as in [`AdamW::amsgrad`]. Default false.
    pub amsgrad: bool,
    /// Not supported with a weight decay in the gradient. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl Adam {
    /// Adam with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    /// The same moments.
    fn adamw(&self) -> AdamW {
        let Self { lr, betas, eps, amsgrad, .. } = *self;
        AdamW {
            lr,
            betas,
            eps,
            amsgrad,
            eps_placement: EpsPlacement::AfterBiasCorrection,
            decay_rate: DecayRate::Base,
            ..AdamW::default()
        }
    }
}

const ROW: BaseRow = BaseRow { name: "adam", ..AdamW::ROWS[0] };
const AMSGRAD: BaseRow = BaseRow { name: "adam (amsgrad)", ..AdamW::ROWS[2] };

impl Direction for Adam {
    const ROWS: &'static [BaseRow] = &[
        ROW,
        AMSGRAD,
        BaseRow { name: "adam (coupled)", constants: &[COUPLED], ..ROW },
        BaseRow { name: "adam (amsgrad, coupled)", constants: &["AMSGRAD", COUPLED], ..AMSGRAD },
    ];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn variants(&self) -> Vec<Self> {
        let amsgrad = [false, true].map(|amsgrad| Self::default().amsgrad(amsgrad));
        [amsgrad, amsgrad.map(|own| own.weight_decay(1e-2))].concat()
    }

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[usize::from(self.amsgrad) + 2 * usize::from(self.weight_decay > 0.0)]
    }

    fn scalars(&self, t: u64) -> StepScalars {
        StepScalars { penalty: self.weight_decay, ..self.adamw().scalars(t) }
    }

    fn validate(&self, section: &str) -> Result<()> {
        self.adamw().validate(section)?;
        check_cautious(section, self.cautious_weight_decay)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        self.adamw().advance(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        self.adamw().direction(scalars, grad, states)
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], grad: [f64; 2], u: f64) -> Option<f64> {
        self.adamw().direction_error(scalars, states, grad, u)
    }
}
