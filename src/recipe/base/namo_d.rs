//! NAMO-D.

use super::adamw::{AdamW, tagged};
use super::kind::{BaseRow, Direction, LineSums, Lines, MOMENTUM, Per, StateRow, StepScalars};
use super::muon::Scale;
use super::newton_schulz::{NewtonSchulz, NsCoefficients};
use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// NAMO-D (Zhang, Liu & Schaeffer, 2026), for matrices: [`Namo`](super::Namo) with one rate per input. `fallback` steps other tensors, see
/// [`MatrixLayout`](crate::MatrixLayout).
///
/// ```text
/// m ← μ m + (1−μ) g ;  d = (1−μ) g + μ m when `nesterov`, else m
/// n ← μ₂ n + (1−μ₂) ‖g‖² ;  e = ‖d‖ / (√n + ε)   for each input: norms of its weights
/// e ← min(max(e, c ē), ē / c)                     ē = mean of e, c = `clamp`
/// r = lr √(1−μ₂^t) / (1−μ^t) e
/// O = NewtonSchulz(d) ;  step = min(r · scale(rows, cols), max_step) ;  decay = min(1, λ min(r, max_step))
/// score s = d ⊙ g, before orthogonalization
/// ```
///
/// Inputs are the columns of a matrix stored as (out, in), and the rows of one stored as (in, out). Weights of an input that never had a
/// gradient decay at the smallest rate. Sums of squares above 3.4e38 count as 3.4e38.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::NamoD;
///
/// assert_eq!(Recipe::from(NamoD::new(1e-2).clamp(0.12)).mgup().name(), "mgup-namo-d");
/// ```
///
/// Source: Zhang et al. (2602.17080), and their code, whose Nesterov term, scale and largest step are the defaults here.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NamoD {
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
    /// c, in (0, 1]. The rates of inputs lie between c and 1/c times their mean. With 1, all inputs have the same rate. Default 0.75.
    #[default(0.75)]
    pub clamp: f64,
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

impl NamoD {
    /// NAMO-D with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for NamoD {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "namo_d",
        states: &[MOMENTUM, StateRow { per: Per::Input, ..StateRow::squares("input_norm_avg") }],
        // `lines` finds the rates of inputs.
        rate: Some("muon_rate"),
        lines: Some(Lines { shader: "namo_d_lines", sums: LineSums::Directions }),
        constants: &["LINE_DECAY"],
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

    fn line_rates<T: Float>(
        &self,
        matrix: Matrix,
        scalars: &StepScalars,
        [grad, direction, _]: [&[T]; 3],
        states: &mut [Vec<T>],
    ) -> Option<(Per, Vec<[T; 2]>)> {
        let lines = Per::Input.lines(matrix);
        let sums = |of: &[T]| {
            let mut sums = vec![T::zero(); states[1].len()];
            of.iter().zip(&lines).for_each(|(&x, &line)| sums[line] = add_square(sums[line], x));
            sums
        };
        let (squares, directions) = (sums(grad), sums(direction));
        let (beta, rest) = (real::<T>(scalars.beta3), real::<T>(1.0 - scalars.beta3));
        let moved = states[1].iter_mut().zip(squares.into_iter().zip(directions)).map(|(n, (square, direction))| {
            *n = beta * *n + rest * square;
            direction.sqrt() / (n.sqrt() + real(scalars.eps))
        });
        let each: Vec<T> = moved.collect();
        let mean = each.iter().fold(T::zero(), |sum, &e| sum + e / real(each.len() as f64));
        let (clamp, most) = (real::<T>(self.clamp), real::<T>(scalars.max_step));
        let of = |e: T| {
            let is_bounded = mean > T::zero() && mean.is_finite();
            let e = if is_bounded { e.max(clamp * mean).min(mean / clamp) } else { e };
            let r = real::<T>(self.lr * scalars.blend[0]) * e;
            [(r * real(self.rate(matrix))).min(most), r.min(most)]
        };
        Some((Per::Input, each.into_iter().map(of).collect()))
    }

    /// The rate of an input takes the place of the step, and is a factor of the decay.
    fn scalars(&self, t: u64) -> StepScalars {
        let t = t as f64;
        let root = (1.0 - self.norm_beta.powf(t)).sqrt();
        StepScalars {
            step: 1.0,
            decay: self.weight_decay,
            eps: self.eps,
            clip: self.clamp,
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
        check(&format!("{section}.clamp"), self.clamp, SHARE)?;
        self.max_step.map_or(Ok(()), |most| check(&format!("{section}.max_step"), most, POSITIVE))
    }
}
