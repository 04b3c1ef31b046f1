//! AdaGrad-Norm.

use super::kind::{BaseRow, Direction, Norms, OWN_STEP, Per, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// AdaGrad-Norm (Ward, Wu & Bottou, 2019): gradient descent with one adaptive step size per tensor.
///
/// ```text
/// a ← a + ‖g‖² ;  u = g                                 one number per tensor
/// step = lr / √(a₀ + a) ;  decay = lr λ                 a₀ = accumulator_init²
/// ```
///
/// The papers use one number for the whole model. Here each tensor has its own. A norm of the gradient that is above 1.84e19, or not finite
/// in f32, counts as 1.84e19. √a is at most 1.84e19, too: after a NaN or infinity, all steps of the tensor are almost 0. The state `sum` is
/// a, without a₀. The score g² is never negative, so only the policies `plain` and `mgup` work with this base. Every tensor must fit into
/// one binding.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::AdaGradNorm;
///
/// let recipe = Recipe::from(AdaGradNorm::new(1.0)).mgup();
/// assert_eq!(recipe.name(), "mgup-adagrad-norm");
/// assert!(recipe.cautious().validate().is_err());
/// ```
///
/// Sources: Ward et al. (1806.01811); Faw et al. (2202.05791).
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AdaGradNorm {
    /// Learning rate η, ≥ 0 and finite. Default 1.
    #[default(1.0)]
    pub lr: f64,
    /// √a₀, 1.1e-19 to 1.8e19. Default 1e-2.
    #[default(1e-2)]
    pub accumulator_init: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl AdaGradNorm {
    /// AdaGrad-Norm with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }
}

impl Direction for AdaGradNorm {
    const ROWS: &'static [BaseRow] = &[BaseRow {
        name: "adagrad_norm",
        // Its direction is the gradient.
        shader: "sgd",
        states: &[StateRow { name: "sum", per: Per::Tensor, squares: true }],
        constants: &[OWN_STEP],
        rate: Some("adagrad_norm_rate"),
        norms: Some(Norms::Gradient),
        no_signs: Some("its score g² is never negative"),
        ..BaseRow::ELEMENTWISE
    }];
    type Fallback = Self;

    fn scalars(&self, _t: u64) -> StepScalars {
        StepScalars { step: self.lr, accumulator_init: self.accumulator_init, ..StepScalars::default() }.with_decay(
            self.lr,
            self.weight_decay,
            false,
        )
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.accumulator_init"), self.accumulator_init, SQUARE_IN_F32)
    }

    fn advance<T: Float>(&self, _scalars: &StepScalars, grad: &[T], _states: &mut [Vec<T>]) -> Vec<T> {
        grad.to_vec()
    }

    fn tensor_rate<T: Float>(&self, scalars: &StepScalars, [grad, ..]: [&[T]; 3], states: &mut [Vec<T>]) -> T {
        let sum = &mut states[0][0];
        *sum = add_square(*sum, counted_norm(grad));
        (real::<T>(scalars.accumulator_init).powi(2) + *sum).sqrt().recip()
    }

    fn direction_error(&self, _scalars: &StepScalars, _states: &[f64], _g: [f64; 2], _u: f64) -> Option<f64> {
        Some(0.0)
    }
}
