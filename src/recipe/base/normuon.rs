//! NorMuon.

use super::adamw::{AdamW, tagged};
use super::kind::{BaseRow, Direction, LineSums, Lines, MOMENTUM, Per, StateRow, StepScalars};
use super::muon::Scale;
use super::newton_schulz::{NewtonSchulz, NsCoefficients};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// NorMuon (Li et al., 2025), for matrices: Muon whose steps have a similar size for all outputs, the neurons of a layer. `fallback` steps
/// other tensors, see [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  d = (1−μ) g + μ m when `nesterov`, else m
/// O = NewtonSchulz(d)
/// v ← β2 v + (1−β2) mean of O²                     for each output: over its inputs
/// Ô = O / (√v + ε) ;  Ô ← Ô ‖O‖_F / (‖Ô‖_F + ε)    the norm of O
/// step = lr · scale(rows, cols) ;  decay = lr λ ;  score s = d ⊙ g, before orthogonalization
/// ```
///
/// Outputs are the rows of a matrix stored as (out, in), and the columns of one stored as (in, out). In the paper, steps have the root mean
/// square 0.2. [`Scale::MatchRmsAdamw`] gives the same if O is orthogonal.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::NorMuon;
///
/// assert_eq!(Recipe::from(NorMuon::new(2e-2).beta2(0.9)).mgup().name(), "mgup-normuon");
/// ```
///
/// Source: Li et al. (2510.05491), and their code, which the defaults follow.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NorMuon {
    /// Learning rate η, ≥ 0 and finite. Default 2e-2.
    #[default(2e-2)]
    pub lr: f64,
    /// Momentum μ, in [0, 1). Default 0.95.
    #[default(0.95)]
    pub momentum: f64,
    /// Whether the direction is Nesterov's, μ m + (1−μ) g, instead of m. Default true.
    #[default(true)]
    pub nesterov: bool,
    /// β2, the decay of the moments of outputs, in [0, 1). Default 0.95.
    #[default(0.95)]
    pub beta2: f64,
    /// ε, finite and at least 2⁻¹²⁶. Default 1e-10.
    #[default(1e-10)]
    pub eps: f64,
    /// Number of Newton–Schulz iterations, as in [`Muon::ns_steps`](super::Muon::ns_steps). Default 5.
    #[default(5)]
    pub ns_steps: u32,
    /// Newton–Schulz coefficients, as in [`Muon::ns_coefficients`](super::Muon::ns_coefficients).
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

impl NorMuon {
    /// NorMuon with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for NorMuon {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "normuon",
        states: &[MOMENTUM, StateRow { per: Per::Output, ..StateRow::squares("second_momentum_buffer") }],
        // `lines` finds the rates of outputs.
        rate: Some("muon_rate"),
        lines: Some(Lines { shader: "normuon_lines", sums: LineSums::Orthogonal }),
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

    fn line_rates<T: Float>(
        &self,
        matrix: Matrix,
        scalars: &StepScalars,
        [.., orthogonal]: [&[T]; 3],
        states: &mut [Vec<T>],
    ) -> Option<(Per, Vec<[T; 2]>)> {
        let (lines, outputs) = (Per::Output.lines(matrix), states[1].len());
        let mut sums = vec![T::zero(); outputs];
        orthogonal.iter().zip(&lines).for_each(|(&o, &line)| sums[line] = sums[line] + o * o);
        let (beta, rest) = (real::<T>(scalars.beta3), real::<T>(1.0 - scalars.beta3));
        let (inputs, eps) = (real::<T>((orthogonal.len() / outputs) as f64), real::<T>(scalars.eps));
        let moved = states[1].iter_mut().zip(&sums).map(|(v, &sum)| {
            *v = beta * *v + rest * (sum / inputs);
            (v.sqrt() + eps).recip()
        });
        let inverse: Vec<T> = moved.collect();
        let before = sums.iter().fold(T::zero(), |all, &sum| all + sum).sqrt();
        let after = sums.iter().zip(&inverse).fold(T::zero(), |all, (&sum, &inverse)| all + sum * inverse * inverse);
        let rate = real::<T>(self.rate(matrix)) * before / (after.sqrt() + eps);
        Some((Per::Output, inverse.into_iter().map(|inverse| [rate * inverse, T::one()]).collect()))
    }

    fn scalars(&self, _: u64) -> StepScalars {
        StepScalars {
            step: self.lr,
            decay: self.lr * self.weight_decay,
            eps: self.eps,
            beta3: self.beta2,
            ..StepScalars::moments([self.momentum, if self.nesterov { self.momentum } else { 1.0 }])
        }
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.momentum"), self.momentum, UNIT)?;
        check(&format!("{section}.beta2"), self.beta2, UNIT)?;
        check(&format!("{section}.eps"), self.eps, POSITIVE)
    }
}
