//! NAMO.

use super::adamw::{AdamW, tagged};
use super::kind::{BaseRow, Direction, MOMENTUM, OWN_DECAY, Per, StateRow, StepScalars};
use super::muon::Scale;
use super::newton_schulz::{NewtonSchulz, NsCoefficients};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// NAMO (Zhang, Liu & Schaeffer, 2026), for matrices: Adam's step size for Muon's direction. `fallback` steps other tensors, see
/// [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  d = (1−μ) g + μ m when `nesterov`, else m
/// n ← μ₂ n + (1−μ₂) ‖g‖_F²                      one number per matrix
/// r = lr √(1−μ₂^t) / (1−μ^t) ‖d‖_F / (√n + ε)
/// O = NewtonSchulz(d) ;  step = min(r · scale(rows, cols), max_step) ;  decay = λ min(r, max_step)
/// score s = d ⊙ g, before orthogonalization
/// ```
///
/// The first step does not depend on the size of the gradient. A norm that is not finite in f32 counts as 1.84e19. Weight decay follows r,
/// which only the GPU knows.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::{Namo, Scale};
///
/// let paper = Namo::new(1e-2).nesterov(false).scale(Scale::None).max_step(None);
/// assert_eq!(Recipe::from(paper).mgup().name(), "mgup-namo");
/// ```
///
/// Source: Zhang et al. (2602.17080), and their code, whose Nesterov term, scale and largest step are the defaults here.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Namo {
    /// Learning rate η, ≥ 0 and finite. Default 1e-2.
    #[default(1e-2)]
    pub lr: f64,
    /// Momentum μ, in [0, 1). Default 0.95.
    #[default(0.95)]
    pub momentum: f64,
    /// Whether the direction is Nesterov's, μ m + (1−μ) g, instead of m. Default true.
    #[default(true)]
    pub nesterov: bool,
    /// μ₂, the decay of the average of squared norms, in [0, 1). Default 0.99.
    #[default(0.99)]
    pub norm_beta: f64,
    /// ε, finite and at least 2⁻¹²⁶. Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// How the step depends on the shape. Default [`Scale::MatchRmsAdamw`].
    #[default(Scale::MatchRmsAdamw)]
    pub scale: Scale,
    /// Largest step, finite and at least 2⁻¹²⁶; `None` for no limit. Default 1.
    #[default(Some(1.0))]
    pub max_step: Option<f64>,
    /// Number of Newton–Schulz iterations, as in [`Muon::ns_steps`](super::Muon::ns_steps). Default 5.
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

impl Namo {
    /// NAMO with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for Namo {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "namo",
        states: &[MOMENTUM, StateRow { name: "norm_avg", per: Per::Tensor, squares: true }],
        rate: Some("namo_rate"),
        constants: &[OWN_DECAY],
        correction: "namo",
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
    }

    fn rate(&self, matrix: Matrix) -> f64 {
        self.scale.factor(matrix)
    }

    fn matrix_rate<T: Float>(
        &self,
        matrix: Matrix,
        scalars: &StepScalars,
        [grad, direction]: [&[T]; 2],
        states: &mut [Vec<T>],
    ) -> [T; 2] {
        let (beta, rest) = (real::<T>(scalars.beta3), real::<T>(1.0 - scalars.beta3));
        let average = &mut states[1][0];
        *average = beta * *average + rest * counted_norm(grad).powi(2);
        let r =
            real::<T>(self.lr * scalars.blend[0]) * (counted_norm(direction) / (average.sqrt() + real(scalars.eps)));
        let most = real::<T>(scalars.max_step);
        [(r * real(self.rate(matrix))).min(most), r.min(most)]
    }

    /// The rate of a matrix takes the place of the step, and is a factor of the decay.
    fn scalars(&self, t: u64) -> StepScalars {
        let t = t as f64;
        let root = (1.0 - self.norm_beta.powf(t)).sqrt();
        StepScalars {
            step: 1.0,
            decay: self.weight_decay,
            eps: self.eps,
            beta3: self.norm_beta,
            blend: [root / (1.0 - self.momentum.powf(t) + 1e-12), 0.0],
            max_step: self.max_step.unwrap_or(f32::MAX.into()),
            ..StepScalars::moments([self.momentum, if self.nesterov { self.momentum } else { 1.0 }])
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.momentum"), self.momentum, UNIT)?;
        check(&format!("{section}.norm_beta"), self.norm_beta, UNIT)?;
        check(&format!("{section}.eps"), self.eps, POSITIVE)?;
        self.max_step.map_or(Ok(()), |most| check(&format!("{section}.max_step"), most, POSITIVE))
    }
}
