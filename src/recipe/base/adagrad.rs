//! AdaGrad.

use super::kind::{BaseRow, COUPLED, Direction, EPS, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// AdaGrad (Duchi, Hazan & Singer, 2011), as PyTorch's `Adagrad`.
///
/// ```text
/// g ← g + λ θ                                  unless `decoupled_weight_decay`
/// a ← a + g² ;  u = g / (√(a₀ + a) + ε)        a₀ = accumulator_init
/// step = lr / (1 + (t−1) lr_decay) ;  decay = lr λ     0 where λ is a part of the gradient
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19, and so does √a. The state `sum` is a, without the a₀ that PyTorch's `sum` begins with. The score
/// of an update policy is u times the gradient without λ θ. Exact selection does not work with a coupled weight decay: use
/// `decoupled_weight_decay`, or approximate selection.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::AdaGrad;
///
/// let recipe = Recipe::from(AdaGrad::new(1e-2).lr_decay(1e-4)).mgup();
/// assert_eq!(recipe.name(), "mgup-adagrad");
/// ```
///
/// Sources: Duchi et al. (JMLR 12, 2011); the documentation of `torch.optim.Adagrad`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdaGrad {
    /// Learning rate η, ≥ 0 and finite. Default 1e-2.
    #[default(1e-2)]
    pub lr: f64,
    /// Share by which the learning rate shrinks per step, ≥ 0 and finite. Default 0.
    pub lr_decay: f64,
    /// a₀, in [0, 1e38]. Default 0.
    pub accumulator_init: f64,
    /// ε: 0, or finite and at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-10.
    #[default(1e-10)]
    pub eps: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter itself instead of being a part of the gradient. Default false.
    pub decoupled_weight_decay: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs a decoupled weight decay. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl AdaGrad {
    /// AdaGrad with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    fn is_coupled(&self) -> bool {
        !self.decoupled_weight_decay && self.weight_decay > 0.0
    }
}

const ROW: BaseRow = BaseRow {
    name: "adagrad",
    shader: "adagrad",
    states: &[StateRow::squares("sum")],
    correction: "adagrad",
    ..BaseRow::ELEMENTWISE
};

impl Direction for AdaGrad {
    const ROWS: &'static [BaseRow] =
        &[ROW, BaseRow { name: "adagrad (coupled)", constants: &[COUPLED], recall: Recall::Lost, ..ROW }];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn variants(&self) -> Vec<Self> {
        let own = Self::default().decoupled();
        vec![own, own.weight_decay(1e-2).decoupled_weight_decay(false)]
    }

    fn decoupled(self) -> Self {
        Self { decoupled_weight_decay: true, ..self }
    }

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[usize::from(self.is_coupled())]
    }

    fn scalars(&self, t: u64) -> StepScalars {
        StepScalars {
            step: self.lr / (1.0 + (t - 1) as f64 * self.lr_decay),
            eps: self.eps,
            lr_decay: self.lr_decay,
            accumulator_init: self.accumulator_init.sqrt(),
            ..StepScalars::default()
        }
        .with_decay(self.lr, self.weight_decay, self.is_coupled())
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.lr_decay"), self.lr_decay, NOT_NEGATIVE)?;
        let moderate: Rule = (|x| (0.0..=1e38).contains(&x), "in [0, 1e38]");
        check(&format!("{section}.accumulator_init"), self.accumulator_init, moderate)?;
        check_eps(section, self.eps)?;
        check_cautious(section, self.cautious_weight_decay && self.is_coupled())
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        states[0].iter_mut().zip(grad).for_each(|(a, &g)| *a = add_square(*a, g));
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let (init, eps) = (real::<T>(scalars.accumulator_init.powi(2)), real::<T>(scalars.eps));
        states[0].iter().zip(grad).map(|(&a, &g)| within_squares(g) / ((init + a).sqrt() + eps)).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let a = scalars.accumulator_init.powi(2) + states[0] + g * g;
        Some(4.0 * EPS * (size / (a.sqrt() + scalars.eps) + 2.0 * u.abs()))
    }
}
