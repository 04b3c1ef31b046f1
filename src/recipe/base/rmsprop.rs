//! RMSprop.

use super::kind::{BaseRow, COUPLED, Direction, EPS, MOMENTUM, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// RMSprop (Hinton, 2012), as PyTorch's `RMSprop`.
///
/// ```text
/// g ← g + λ θ                          unless `decoupled_weight_decay`
/// v ← α v + (1−α) g² ;  a ← α a + (1−α) g       a with `centered`
/// n = g / (√v + ε)                     or  g / (√max(v − a², 0) + ε)
/// u = n                                or  b ← μ b + n ;  u = b     where μ > 0
/// step = lr ;  decay = lr λ            0 where λ is a part of the gradient
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19. The score of an update policy is u times the gradient without λ θ. Exact selection does not
/// work with a coupled weight decay unless there is a momentum: use `decoupled_weight_decay`, or approximate selection.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::RmsProp;
///
/// let recipe = Recipe::from(RmsProp::new(1e-3).alpha(0.95).momentum(0.9).centered(true)).cautious();
/// assert_eq!(recipe.name(), "cautious-rmsprop");
/// ```
///
/// Sources: Hinton (2012, lecture 6e); Graves (2013, 1308.0850) for `centered`; the documentation of `torch.optim.RMSprop`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RmsProp {
    /// Learning rate η, ≥ 0 and finite. Default 1e-2.
    #[default(1e-2)]
    pub lr: f64,
    /// α, the decay of the averages, in [0, 1). Default 0.99.
    #[default(0.99)]
    pub alpha: f64,
    /// ε: 0, or finite and at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// μ, in [0, 1). 0 keeps no momentum. Default 0.
    pub momentum: f64,
    /// Whether to divide by the standard deviation instead of the root mean square. Default false.
    pub centered: bool,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter itself instead of being a part of the gradient. Default false.
    pub decoupled_weight_decay: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs a decoupled weight decay. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl RmsProp {
    /// RMSprop with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    /// The gradient over the root of its mean square, from the new states.
    fn normalized<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let eps = real::<T>(scalars.eps);
        let of = |(i, &g): (usize, &T)| {
            let mut variance = states[0][i];
            if self.centered {
                variance = (variance - states[1][i] * states[1][i]).max(T::zero());
            }
            within_squares(g) / (variance.sqrt() + eps)
        };
        grad.iter().enumerate().map(of).collect()
    }

    fn is_coupled(&self) -> bool {
        !self.decoupled_weight_decay && self.weight_decay > 0.0
    }
}

const V: StateRow = StateRow::squares("square_avg");
const A: StateRow = StateRow::new("grad_avg");
const ROW: BaseRow = BaseRow { name: "rmsprop", shader: "rmsprop", states: &[V], ..BaseRow::ELEMENTWISE };
const WITH_MOMENTUM: BaseRow =
    BaseRow { name: "rmsprop (momentum)", states: &[V, MOMENTUM], constants: &["MOMENTUM"], ..ROW };
const CENTERED: BaseRow = BaseRow {
    name: "rmsprop (centered)",
    states: &[V, A],
    constants: &["CENTERED"],
    needs_f32: Some("the variance is a difference of two states that are nearly equal"),
    ..ROW
};
const WITH_BOTH: BaseRow = BaseRow {
    name: "rmsprop (centered, momentum)",
    states: &[V, A, MOMENTUM],
    constants: &["CENTERED", "MOMENTUM"],
    ..CENTERED
};

impl Direction for RmsProp {
    const ROWS: &'static [BaseRow] = &[
        ROW,
        WITH_MOMENTUM,
        CENTERED,
        WITH_BOTH,
        BaseRow { name: "rmsprop (coupled)", constants: &[COUPLED], recall: Recall::Lost, ..ROW },
        BaseRow { name: "rmsprop (momentum, coupled)", constants: &["MOMENTUM", COUPLED], ..WITH_MOMENTUM },
        BaseRow {
            name: "rmsprop (centered, coupled)",
            constants: &["CENTERED", COUPLED],
            recall: Recall::Lost,
            ..CENTERED
        },
        BaseRow {
            name: "rmsprop (centered, momentum, coupled)",
            constants: &["CENTERED", "MOMENTUM", COUPLED],
            ..WITH_BOTH
        },
    ];
    type Fallback = Self;

    fn added_eps(&self) -> Option<f64> {
        Some(self.eps)
    }

    fn variants(&self) -> Vec<Self> {
        let own = Self::default().decoupled();
        let four = [own, own.momentum(0.9), own.centered(true), own.centered(true).momentum(0.9)];
        let coupled = four.map(|own| own.weight_decay(1e-2).decoupled_weight_decay(false));
        [four, coupled].concat()
    }

    fn decoupled(self) -> Self {
        Self { decoupled_weight_decay: true, ..self }
    }

    fn row(&self) -> &'static BaseRow {
        let [momentum, centered, coupled] = [self.momentum > 0.0, self.centered, self.is_coupled()].map(usize::from);
        &Self::ROWS[momentum + 2 * centered + 4 * coupled]
    }

    fn scalars(&self, _: u64) -> StepScalars {
        StepScalars {
            step: self.lr,
            eps: self.eps,
            rests: [1.0, 1.0 - self.alpha],
            ..StepScalars::moments([self.momentum, self.alpha])
        }
        .with_decay(self.lr, self.weight_decay, self.is_coupled())
    }

    fn validate(&self, section: &str) -> Result<()> {
        check(&format!("{section}.alpha"), self.alpha, UNIT)?;
        check(&format!("{section}.momentum"), self.momentum, UNIT)?;
        check_eps(section, self.eps)?;
        check_cautious(section, self.cautious_weight_decay && self.is_coupled())
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(mu, _), (alpha, rest)] = scalars.weights::<T>();
        for (i, &g) in grad.iter().enumerate() {
            let g = within_squares(g);
            states[0][i] = alpha * states[0][i] + rest * (g * g);
            if self.centered {
                states[1][i] = alpha * states[1][i] + rest * g;
            }
        }
        if self.momentum > 0.0 {
            let normalized = self.normalized(scalars, grad, states);
            let momentum = &mut states[1 + usize::from(self.centered)];
            momentum.iter_mut().zip(normalized).for_each(|(b, n)| *b = mu * *b + n);
        }
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        match self.momentum > 0.0 {
            true => states[states.len() - 1].clone(),
            false => self.normalized(scalars, grad, states),
        }
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], _: f64) -> Option<f64> {
        let [mu, alpha] = scalars.betas;
        let v = alpha * states[0] + (1.0 - alpha) * g * g;
        let a = if self.centered { alpha * states[1] + (1.0 - alpha) * g } else { 0.0 };
        let variance = (v - a * a).max(0.0);
        // The variance may have cancelled.
        let error = 4.0 * EPS * (v + a * a + 2.0 * (1.0 - alpha) * size * (g.abs() + a.abs()));
        let lost = (variance + error).sqrt() - (variance - error).max(0.0).sqrt();
        let denominator = (variance - error).max(0.0).sqrt() + scalars.eps;
        let normalized = g.abs() / denominator;
        let buffer = if self.momentum > 0.0 { mu * states[states.len() - 1].abs() } else { 0.0 };
        Some(4.0 * EPS * (size / denominator + 2.0 * normalized + buffer) + normalized * lost / denominator)
    }
}
