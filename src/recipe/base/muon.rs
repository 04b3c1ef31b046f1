//! Muon.

use super::adamw::{AdamW, tagged};
use super::kind::{BaseRow, Direction, StepScalars};
use super::newton_schulz::{NewtonSchulz, NsCoefficients};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// Muon (Jordan et al., 2024), for matrices. `fallback` steps other tensors, see [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  d = (1−μ) g + μ m when `nesterov`, else m
/// O = NewtonSchulz(d) ;  step = lr · scale(rows, cols) ;  decay = lr λ ;  score s = d ⊙ g, before orthogonalization
/// ```
///
/// The momentum is an average, while PyTorch's is a sum. The step is the same, because Newton–Schulz normalizes the direction first.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::{AdamW, Muon, Scale};
/// use wgpu_optim::policy::Plain;
///
/// let muon = Muon::new(2e-2).momentum(0.95).scale(Scale::MatchRmsAdamw).fallback(AdamW::new(1e-3));
/// assert_eq!(Recipe::from(muon), Recipe::new(muon, Plain::default()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Muon {
    /// Learning rate η, ≥ 0 and finite. Default 2e-2.
    #[default(2e-2)]
    pub lr: f64,
    /// Momentum μ, in [0, 1). Default 0.95.
    #[default(0.95)]
    pub momentum: f64,
    /// Whether the direction is Nesterov's, μ m + (1−μ) g, instead of m. Default true.
    #[default(true)]
    pub nesterov: bool,
    /// Number of Newton–Schulz iterations, 1 to 100. Default 5.
    #[default(5)]
    pub ns_steps: u32,
    /// (a, b, c) of X ← a X + (b A + c A²) X with A = X Xᵀ, finite: one triple, or one per iteration. Default
    /// [`NsCoefficients::QUINTIC`]. [`NsCoefficients::POLAR_EXPRESS`] brings singular values closer to 1, and
    /// [`NsCoefficients::POLAR_EXPRESS_4`] needs 4 iterations to bring them as close as `QUINTIC` does in 5. (2, −1.5, 0.5) converges to 1.
    #[setters(into)]
    pub ns_coefficients: NsCoefficients,
    /// How the step depends on the shape. Default [`Scale::Original`].
    pub scale: Scale,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters of matrices that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
    /// AdamW for tensors that are not matrices, under the same policy. Default `AdamW::default()`.
    #[serde(with = "tagged")]
    pub fallback: AdamW,
}

/// The factor of Muon's step for a matrix of rows × cols = (out, in).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scale {
    /// √max(1, rows / cols): Jordan et al.
    #[default]
    Original,
    /// 0.2 √max(rows, cols), for the learning rate and weight decay of AdamW: Liu et al., 2025, arXiv 2502.16982.
    MatchRmsAdamw,
    /// The factor is 1.
    None,
}

impl Scale {
    /// The factor for a matrix.
    pub fn factor(self, matrix: Matrix) -> f64 {
        let (rows, cols) = (matrix.rows as f64, matrix.cols as f64);
        let (rows, cols) = if matrix.inputs_first { (cols, rows) } else { (rows, cols) };
        match self {
            Scale::Original => (rows / cols).max(1.0).sqrt(),
            Scale::MatchRmsAdamw => 0.2 * rows.max(cols).sqrt(),
            Scale::None => 1.0,
        }
    }
}

impl Muon {
    /// Muon with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for Muon {
    const ROWS: &'static [BaseRow] = &[BaseRow { name: "muon", rate: Some("muon_rate"), ..BaseRow::MOMENTUM }];
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

    fn scalars(&self, _: u64) -> StepScalars {
        StepScalars {
            step: self.lr,
            decay: self.lr * self.weight_decay,
            ..StepScalars::moments([self.momentum, if self.nesterov { self.momentum } else { 1.0 }])
        }
    }

    fn validate(&self, _: &str) -> Result<()> {
        check("base.momentum", self.momentum, UNIT)
    }
}
