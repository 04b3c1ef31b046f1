//! Adafactor.

use super::kind::{BaseRow, Direction, EPS, LineSums, Lines, Norms, OWN_STEP, Per, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// Adafactor (Shazeer & Stern, 2018), as in Burn: one second moment per row and one per column of a matrix, and steps in proportion to the
/// size of the parameter.
///
/// ```text
/// β = 1 − t^decay_rate
/// R ← β R + (1−β) (mean of g² in the row + ε1)       C the same for columns
/// u = g / √(R C / mean R)                            of a matrix
/// v ← β v + (1−β) (g² + ε1) ;  u = g / √v            of other tensors
/// step = min(lr, 1/√t) · max(ε2, RMS(θ)) / max(1, RMS(u) / clip_threshold) ;  decay = lr λ
/// ```
///
/// [`MatrixLayout`](crate::MatrixLayout) says which tensors are matrices. It does not matter which dimension holds the inputs. Other
/// tensors have one v per coordinate; Burn and PyTorch factor the last two dimensions of tensors of rank 3 and more. A |g| above 1.84e19
/// counts as 1.84e19. Every tensor must fit into one binding. A NaN or infinity in a gradient spreads within its tensor.
///
/// The defaults are Burn's. PyTorch does not add ε1 to the moments. It bounds its divisors from below, by default with 1.2e-7 in f32.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::Adafactor;
///
/// // A learning rate that depends on neither the step nor the parameter.
/// let recipe = Recipe::from(Adafactor::new(1e-3).relative_step(false).scale_parameter(false)).mgup();
/// assert_eq!(recipe.name(), "mgup-adafactor");
/// ```
///
/// Sources: Shazeer & Stern (1804.04235); the documentation of Burn 0.22 and of `torch.optim.Adafactor`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Adafactor {
    /// Learning rate η, ≥ 0 and finite. Default 1e-2.
    #[default(1e-2)]
    pub lr: f64,
    /// Exponent of t in β = 1 − t^decay_rate, negative and finite. Default −0.8.
    #[default(-0.8)]
    pub decay_rate: f64,
    /// ε1, which is added to squared gradients, finite and at least 2⁻¹²⁶. Default 1e-30.
    #[default(1e-30)]
    pub eps: f64,
    /// ε2, the lower bound of RMS(θ), finite and at least 2⁻¹²⁶. Default 1e-3.
    #[default(1e-3)]
    pub eps_scale: f64,
    /// The largest RMS(u). Longer directions are scaled down to it. Finite and at least 2⁻¹²⁶. Default 1.
    #[default(1.0)]
    pub clip_threshold: f64,
    /// Whether the learning rate is at most 1/√t. Default true.
    #[default(true)]
    pub relative_step: bool,
    /// Whether steps are in proportion to max(ε2, RMS(θ)). Default true.
    #[default(true)]
    pub scale_parameter: bool,
    /// Whether matrices have moments of rows and columns. If not, every tensor has one v per coordinate. Default true.
    #[default(true)]
    pub factored: bool,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl Adafactor {
    /// Adafactor with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

const ROW: BaseRow = BaseRow {
    shader: "adafactor",
    recall: Recall::State,
    correction: "adafactor",
    rate: Some("adafactor_rate"),
    norms: Some(Norms::Update),
    ..BaseRow::ELEMENTWISE
};

/// g / root, and 0 for a gradient of 0 whose moment has vanished.
fn quotient<T: Float>(g: T, root: T) -> T {
    if g == T::zero() { g } else { g / root }
}

impl Direction for Adafactor {
    const ROWS: &'static [BaseRow] = &[
        BaseRow {
            name: "adafactor",
            states: &[
                StateRow { per: Per::Row, ..StateRow::squares("row_var") },
                StateRow { per: Per::Column, ..StateRow::squares("col_var") },
            ],
            constants: &["OWN_WEIGHT", OWN_STEP],
            lines: Some(Lines { shader: "adafactor_lines", sums: LineSums::Gradients }),
            ..ROW
        },
        BaseRow {
            name: "adafactor (vectors)",
            shader: "adafactor_vectors",
            states: &[StateRow::squares("variance")],
            constants: &[OWN_STEP],
            ..ROW
        },
    ];
    type Fallback = Self;

    fn variants(&self) -> Vec<Self> {
        vec![Self::default(), Self::default().factored(false)]
    }

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[usize::from(!self.factored)]
    }

    fn fallback(&self) -> Option<Self> {
        self.factored.then_some(self.factored(false))
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let t = t as f64;
        let rest = t.powf(self.decay_rate);
        StepScalars {
            step: if self.relative_step { self.lr.min(1.0 / t.sqrt()) } else { self.lr },
            eps: self.eps,
            min_step: self.eps_scale,
            clip: self.clip_threshold,
            betas: [0.0, 1.0 - rest],
            rests: [0.0, rest],
            blend: [0.0, f64::from(u8::from(self.scale_parameter))],
            adaptive: self.relative_step,
            ln_momentum_decay: self.decay_rate,
            ..StepScalars::default()
        }
        .with_decay(self.lr, self.weight_decay, false)
    }

    fn validate(&self, section: &str) -> Result<()> {
        let negative: Rule = (|x| x < 0.0 && x.is_finite(), "negative and finite");
        check(&format!("{section}.decay_rate"), self.decay_rate, negative)?;
        check(&format!("{section}.eps"), self.eps, POSITIVE)?;
        check(&format!("{section}.eps_scale"), self.eps_scale, POSITIVE)?;
        check(&format!("{section}.clip_threshold"), self.clip_threshold, POSITIVE)
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let ([_, (beta, rest)], eps) = (scalars.weights::<T>(), real::<T>(scalars.eps));
        let grad: Vec<T> = grad.iter().map(|&g| within_squares(g)).collect();
        let move_on = |old: &mut T, mean: T| *old = beta * *old + rest * (mean + eps);
        let [row_var, col_var] = states else {
            let moved = states[0].iter_mut().zip(&grad).map(|(v, &g)| {
                move_on(v, g * g);
                quotient(g, v.sqrt())
            });
            return moved.collect();
        };
        let (rows, cols) = (row_var.len(), col_var.len());
        let mean = |of: &mut dyn Iterator<Item = T>, count: usize| {
            of.fold(T::zero(), |sum, g| add_square(sum, g)) / real(count as f64)
        };
        for (r, row) in row_var.iter_mut().zip(grad.chunks(cols)) {
            move_on(r, mean(&mut row.iter().copied(), cols));
        }
        for (j, c) in col_var.iter_mut().enumerate() {
            move_on(c, mean(&mut grad.iter().skip(j).step_by(cols).copied(), rows));
        }
        let all = row_var.iter().fold(T::zero(), |sum, &r| sum + r / real(rows as f64));
        let divided = grad.iter().enumerate();
        let weight = all.sqrt().recip();
        divided.map(|(i, &g)| quotient(g, row_var[i / cols].sqrt() * (weight * col_var[i % cols].sqrt()))).collect()
    }

    fn tensor_rate<T: Float>(&self, scalars: &StepScalars, [_, direction, param]: [&[T]; 3], _: &mut [Vec<T>]) -> T {
        let rms = |of: &[T]| grad_norm([of]) / real::<T>(of.len() as f64).sqrt();
        let scale = if self.scale_parameter { rms(param).max(real(scalars.min_step)) } else { T::one() };
        scale / (rms(direction) / real(scalars.clip)).max(T::one())
    }

    fn direction_error(&self, _scalars: &StepScalars, _states: &[f64], _g: [f64; 2], u: f64) -> Option<f64> {
        // Moments of many squares in another order.
        Some(64.0 * EPS * u.abs())
    }
}
