//! SGD.

use super::kind::{BaseRow, COUPLED, Direction, EPS, MOMENTUM, Recall, StepScalars};
use crate::recipe::prelude::*;

/// Stochastic gradient descent with an optional momentum, as PyTorch's `SGD`.
///
/// ```text
/// g ← g + λ θ                                unless `decoupled_weight_decay`
/// b ← μ b + (1 − dampening) g                b = g in the first step; no b if μ = 0
/// u = b                                      or  g + μ b with `nesterov`; g if μ = 0
/// step = lr ;  decay = lr λ                  0 where λ is a part of the gradient
/// ```
///
/// The score of an update policy is u times the gradient without λ θ. Exact selection finds a direction again after the parameter has
/// moved, so it does not work with `nesterov` and a coupled weight decay: use `decoupled_weight_decay`, or approximate selection. Without
/// momentum, weight decay is always decoupled. Under plain updates, both kinds are the same then.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::Sgd;
///
/// let recipe = Recipe::from(Sgd::new(0.1).momentum(0.9).nesterov(true)).mgup();
/// assert_eq!(recipe.name(), "mgup-sgd");
/// assert!(recipe.weight_decay(1e-4).validate().unwrap_err().to_string().contains("decoupled_weight_decay"));
/// ```
///
/// Sources: Sutskever et al. (2013); the documentation of `torch.optim.SGD`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Sgd {
    /// Learning rate η, ≥ 0 and finite. Default 1e-3.
    #[default(1e-3)]
    pub lr: f64,
    /// μ, in [0, 1). 0 keeps no state. Default 0.
    pub momentum: f64,
    /// Share of a gradient that the momentum leaves out after the first step, in [0, 1]. Default 0.
    pub dampening: f64,
    /// Whether the direction looks a step ahead. Needs a momentum, and a dampening of 0. Default false.
    pub nesterov: bool,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter itself instead of being a part of the gradient, as it always does without momentum.
    /// Default false.
    pub decoupled_weight_decay: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs a decoupled weight decay. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl Sgd {
    /// SGD with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    fn is_coupled(&self) -> bool {
        !self.decoupled_weight_decay && self.weight_decay > 0.0 && self.momentum > 0.0
    }
}

const ROW: BaseRow = BaseRow { name: "sgd", shader: "sgd", correction: "sgd", ..BaseRow::ELEMENTWISE };
const WITH_MOMENTUM: BaseRow = BaseRow { name: "sgd (momentum)", states: &[MOMENTUM], constants: &["MOMENTUM"], ..ROW };
const WITH_BOTH: BaseRow =
    BaseRow { name: "sgd (momentum, coupled)", constants: &["MOMENTUM", COUPLED], ..WITH_MOMENTUM };

impl Direction for Sgd {
    const ROWS: &'static [BaseRow] = &[
        ROW,
        WITH_MOMENTUM,
        WITH_BOTH,
        BaseRow { name: "sgd (nesterov, coupled)", recall: Recall::Lost, ..WITH_BOTH },
    ];
    type Fallback = Self;

    fn variants(&self) -> Vec<Self> {
        let own = Self::default().decoupled();
        let momentum = own.momentum(0.9).dampening(0.1);
        let coupled = Self { decoupled_weight_decay: false, ..momentum.weight_decay(1e-2) };
        vec![own, momentum, coupled, coupled.dampening(0.0).nesterov(true)]
    }

    fn decoupled(self) -> Self {
        Self { decoupled_weight_decay: true, ..self }
    }

    fn row(&self) -> &'static BaseRow {
        &Self::ROWS[match (self.momentum > 0.0, self.is_coupled(), self.nesterov) {
            (false, ..) => 0,
            (true, false, _) => 1,
            (true, true, false) => 2,
            (true, true, true) => 3,
        }]
    }

    fn scalars(&self, t: u64) -> StepScalars {
        // Without momentum, u = 0 b + 1 g.
        let (ahead, own) = match (self.momentum > 0.0, self.nesterov) {
            (false, _) => (0.0, 1.0),
            (true, true) => (self.momentum, 1.0),
            (true, false) => (1.0, 0.0),
        };
        StepScalars {
            step: self.lr,
            betas: [self.momentum, ahead],
            rests: [if t == 1 { 1.0 } else { 1.0 - self.dampening }, own],
            ..StepScalars::default()
        }
        .with_decay(self.lr, self.weight_decay, self.is_coupled())
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.momentum"), self.momentum, UNIT)?;
        check(&format!("{section}.dampening"), self.dampening, CLOSED_UNIT)?;
        let needs = "false, or a momentum above 0 and a dampening of 0";
        ensure_field(section, "nesterov", !self.nesterov || (self.momentum > 0.0 && self.dampening == 0.0), needs)?;
        check_cautious(section, self.cautious_weight_decay && self.is_coupled())
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let (mu, rest) = scalars.weights::<T>()[0];
        states.iter_mut().flatten().zip(grad).for_each(|(b, &g)| *b = mu * *b + rest * g);
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let (ahead, own) = scalars.weights::<T>()[1];
        let [b] = states else { return grad.to_vec() };
        b.iter().zip(grad).map(|(&b, &g)| ahead * b + own * g).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [_, size]: [f64; 2], _: f64) -> Option<f64> {
        let ([mu, ahead], [rest, own]) = (scalars.betas, scalars.rests);
        let parts = states.first().map_or(0.0, |b| (mu * b).abs()) + rest * size;
        Some(4.0 * EPS * (ahead * parts + own * size))
    }
}
