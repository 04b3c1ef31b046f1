//! NAdam.

use super::kind::{BaseRow, COUPLED, Direction, EPS, Recall, StateRow, StepScalars};
use crate::recipe::prelude::*;

/// NAdam (Dozat, 2016): Adam that looks a step ahead, as PyTorch's `NAdam`.
///
/// ```text
/// g ← g + λ θ                                       unless `decoupled_weight_decay`
/// m ← β1 m + (1−β1) g ;  v ← β2 v + (1−β2) g²
/// μ_t = β1 (1 − 0.96^(t ψ) / 2) ;  Π_t = μ_1 ⋯ μ_t   ψ = momentum_decay
/// u = (g (1 − μ_t) / (1 − Π_t) + m μ_{t+1} / (1 − Π_{t+1})) / (√v + ε √c2)       c2 = 1 − β2^t
/// step = lr √c2 ;  decay = lr λ                     0 where λ is a part of the gradient
/// ```
///
/// A |g| above 1.84e19 counts as 1.84e19. The score of an update policy is u times the gradient without λ θ. Exact selection does not
/// work with a coupled weight decay: use `decoupled_weight_decay`, or approximate selection.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::NAdam;
///
/// let nadam = NAdam::new(2e-3).weight_decay(1e-2).decoupled_weight_decay(true);
/// assert_eq!(Recipe::from(nadam).mgup().name(), "mgup-nadam");
/// ```
///
/// Sources: Dozat (ICLR workshop 2016); the documentation of `torch.optim.NAdam`.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NAdam {
    /// Learning rate η, ≥ 0 and finite. Default 2e-3.
    #[default(2e-3)]
    pub lr: f64,
    /// Decay of the first and second moment, each in [0, 1). Default (0.9, 0.999).
    #[default([0.9, 0.999])]
    pub betas: [f64; 2],
    /// ε: 0, or so large that ε √(1 − β2) is at least 2⁻¹²⁶. 0 divides 0 by 0 where a coordinate never had a gradient.
    /// Default 1e-8.
    #[default(1e-8)]
    pub eps: f64,
    /// ψ, how fast the momentum rises to β1, ≥ 0 and finite. Default 4e-3.
    #[default(4e-3)]
    pub momentum_decay: f64,
    /// λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter itself instead of being a part of the gradient. Default false.
    pub decoupled_weight_decay: bool,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Needs a decoupled weight decay. Default false.
    #[serde(skip_serializing_if = "is_false")]
    pub cautious_weight_decay: bool,
}

impl NAdam {
    /// NAdam with this learning rate, and the defaults of its other fields.
    pub fn new(lr: f64) -> Self {
        Self::default().lr(lr)
    }

    fn is_coupled(&self) -> bool {
        !self.decoupled_weight_decay && self.weight_decay > 0.0
    }

    /// ψ ln 0.96.
    fn ln_decay(&self) -> f64 {
        self.momentum_decay * 0.96f64.ln()
    }

    /// μ_t.
    fn momentum(&self, t: f64) -> f64 {
        self.betas[0] * (1.0 - 0.5 * (t * self.ln_decay()).exp())
    }

    /// Π_t. With q = 0.96^ψ, the logarithm of each factor but β1 is −Σ_j (q^k / 2)^j / j, and the sum over k is a geometric series.
    fn product(&self, t: f64) -> f64 {
        let sum_of_powers = |j: f64| match j * self.ln_decay() {
            0.0 => t,
            x => x.exp() * (t * x).exp_m1() / x.exp_m1(),
        };
        let sum: f64 = (1..60).map(|j| sum_of_powers(f64::from(j)) * 0.5f64.powi(j) / f64::from(j)).sum();
        (t * self.betas[0].ln() - sum).exp()
    }
}

const ROW: BaseRow = BaseRow {
    name: "nadam",
    shader: "nadam",
    states: &[StateRow::new("exp_avg"), StateRow::squares("exp_avg_sq")],
    correction: "nadam",
    ..BaseRow::ELEMENTWISE
};

impl Direction for NAdam {
    const ROWS: &'static [BaseRow] =
        &[ROW, BaseRow { name: "nadam (coupled)", constants: &[COUPLED], recall: Recall::Lost, ..ROW }];
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
        let t = t as f64;
        let root = (1.0 - self.betas[1].powf(t)).sqrt();
        StepScalars {
            step: self.lr * root,
            eps: self.eps * root,
            blend: [
                (1.0 - self.momentum(t)) / (1.0 - self.product(t)),
                self.momentum(t + 1.0) / (1.0 - self.product(t + 1.0)),
            ],
            ln_momentum_decay: self.ln_decay(),
            ..StepScalars::moments(self.betas)
        }
        .with_decay(self.lr, self.weight_decay, self.is_coupled())
    }

    fn validate(&self, section: &str) -> Result<()> {
        check_betas(section, &self.betas)?;
        check(&format!("{section}.momentum_decay"), self.momentum_decay, NOT_NEGATIVE)?;
        check_eps_corrected(section, self.eps, &self.betas)?;
        check_cautious(section, self.cautious_weight_decay && self.is_coupled())
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let [(beta1, rest1), moment] = scalars.weights::<T>();
        let [m, v] = states else { panic!("NAdam has two states") };
        for ((m, v), &g) in m.iter_mut().zip(v).zip(grad) {
            let g = within_squares(g);
            *m = beta1 * *m + rest1 * g;
            second_moment(v, moment, g);
        }
        self.direction(scalars, grad, states)
    }

    fn direction<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &[Vec<T>]) -> Vec<T> {
        let ([own, ahead], eps) = (scalars.blend.map(real::<T>), real::<T>(scalars.eps));
        let moments = states[0].iter().zip(&states[1]).zip(grad);
        moments.map(|((&m, v), &g)| (own * within_squares(g) + ahead * m) / (v.sqrt() + eps)).collect()
    }

    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, size]: [f64; 2], u: f64) -> Option<f64> {
        let ([beta1, beta2], [own, ahead]) = (scalars.betas, scalars.blend);
        let parts = ahead * ((beta1 * states[0]).abs() + (1.0 - beta1) * size) + own * size;
        let v = beta2 * states[1] + (1.0 - beta2) * g * g;
        Some(4.0 * EPS * (parts / (v.sqrt() + scalars.eps) + 2.0 * u.abs()))
    }
}
