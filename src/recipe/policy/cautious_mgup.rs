//! Cautious-MGUP: the factors of MGUP, chosen by the sign of the score.

use super::kind::{Factor, PolicyRow, Selects};
use crate::recipe::prelude::*;

/// φ = α where s > 0, else γ: the Cautious-MGUP of the MGUP paper (Chang & Yuan, NeurIPS 2025).
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::policy::CautiousMgup;
///
/// let recipe = Recipe::adamw(1e-3).with_policy(CautiousMgup::default().ratio(0.7));
/// assert_eq!(recipe.policy.factors(), (1.0 / 0.7, 0.7));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct CautiousMgup {
    /// τ, in (0, 1). Default 0.5. Only the defaults of `alpha` and `gamma` use it.
    #[default(0.5)]
    pub ratio: f64,
    /// Factor where s > 0, ≥ 0 and finite. Default 1/τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Factor where s ≤ 0, ≥ 0 and finite. Default τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
}

impl Factor for CautiousMgup {
    const ROWS: &'static [PolicyRow] = &[PolicyRow::new("cautious_mgup", "mgup", Selects::Positive)];

    fn split(&self) -> Option<(f64, Option<f64>, Option<f64>)> {
        Some((self.ratio, self.alpha, self.gamma))
    }

    fn phi<T: Float>(&self, score: &[T], _: u64) -> (Vec<T>, usize) {
        let (alpha, gamma) = self.factors();
        let phi = |&s: &T| real(if sign(s) > T::zero() { alpha } else { gamma });
        (score.iter().map(phi).collect(), 0)
    }
}
