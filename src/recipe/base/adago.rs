//! AdaGO.

use super::adamw::{AdamW, tagged};
use super::kind::{BaseRow, Direction, MOMENTUM, Per, StateRow, StepScalars};
use super::newton_schulz::{NewtonSchulz, NsCoefficients};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// AdaGO (Zhang et al., 2025, arXiv 2509.02981), for matrices. `fallback` steps other tensors; see
/// [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  n = min(‖g‖_F, clip) ;  a ← a + n², from a₀ = accumulator_init²
/// O = NewtonSchulz(m) ;  step = max(min_step, lr n / √a) ;  decay = lr λ ;  score s = m ⊙ g
/// ```
///
/// If a schedule or `set_lr` changes the learning rate, `min_step` changes in proportion. So a rate of 0 moves nothing.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::AdaGo;
/// use wgpu_optim::policy::Grams;
///
/// let adago = AdaGo::new(5e-2).clip(5.0).min_step(5e-4);
/// // A sign of a coordinate means nothing after matrices are orthogonalized.
/// assert!(Recipe::new(adago, Grams::default()).validate().is_err());
/// assert!(Recipe::from(adago).mgup().validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdaGo {
    /// Learning rate η, ≥ 0 and finite. Default 5e-2.
    #[default(5e-2)]
    pub lr: f64,
    /// Momentum μ, in [0, 1). Default 0.95.
    #[default(0.95)]
    pub momentum: f64,
    /// Largest gradient norm n of a matrix, 1.1e-19 to 1.8e19. Larger norms, and norms not finite in f32, count as this. Default 10.
    #[default(10.0)]
    pub clip: f64,
    /// The smallest step at the learning rate `lr`, ≥ 0 and finite. It changes in proportion with the learning rate, and is 0 at a
    /// rate of 0. Default 5e-4.
    #[default(5e-4)]
    pub min_step: f64,
    /// √a before the first step, 1.1e-19 to 1.8e19. Default 1e-6.
    #[default(1e-6)]
    pub accumulator_init: f64,
    /// Number of Newton–Schulz iterations, as in [`Muon::ns_steps`](super::Muon::ns_steps).
    #[default(5)]
    pub ns_steps: u32,
    /// Newton–Schulz coefficients, as in [`Muon::ns_coefficients`](super::Muon::ns_coefficients).
    #[setters(into)]
    pub ns_coefficients: NsCoefficients,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
    /// AdamW for tensors that are not matrices, under the same policy. Default `AdamW::default()`.
    #[serde(with = "tagged")]
    pub fallback: AdamW,
}

impl AdaGo {
    /// AdaGO with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for AdaGo {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "adago",
        states: &[MOMENTUM, StateRow { name: "accumulator", per: Per::Tensor, squares: true }],
        rate: Some("adago_rate"),
        ..BaseRow::MOMENTUM
    }];
    type Fallback = AdamW;

    fn fallback(&self) -> Option<AdamW> {
        Some(self.fallback)
    }

    fn newton_schulz(&self) -> Option<NewtonSchulz> {
        Some(NewtonSchulz { steps: self.ns_steps, coefficients: self.ns_coefficients })
    }

    fn follow(&mut self, ratio: f64) {
        self.fallback.lr *= ratio;
        self.min_step *= ratio;
    }

    fn matrix_rate<T: Float>(
        &self,
        _: Matrix,
        scalars: &StepScalars,
        [grad, _]: [&[T]; 2],
        states: &mut [Vec<T>],
    ) -> [T; 2] {
        let StepScalars { clip, min_step, accumulator_init, .. } = *scalars;
        let (n, init) = (grad_norm([grad]).min(real(clip)), real::<T>(accumulator_init));
        let squares = &mut states[1][0];
        *squares = *squares + n * n;
        [(real::<T>(self.lr) * n / (init * init + *squares).sqrt()).max(real(min_step)), T::one()]
    }

    /// The rate of a matrix takes the place of the step.
    fn scalars(&self, _: u64) -> StepScalars {
        StepScalars {
            step: 1.0,
            decay: self.lr * self.weight_decay,
            clip: self.clip,
            min_step: if self.lr > 0.0 { self.min_step } else { 0.0 },
            accumulator_init: self.accumulator_init,
            ..StepScalars::moments([self.momentum, 1.0])
        }
    }

    fn validate(&self, _: &str) -> Result<()> {
        check("base.momentum", self.momentum, UNIT)?;
        check("base.clip", self.clip, SQUARE_IN_F32)?;
        check("base.min_step", self.min_step, NOT_NEGATIVE)?;
        check("base.accumulator_init", self.accumulator_init, SQUARE_IN_F32)
    }
}
