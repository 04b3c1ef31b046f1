//! Update policies: how far each coordinate moves, from how well direction and gradient agree.
//!
//! Every policy maps the alignment score s = u ⊙ g of a tensor to a factor φ per coordinate, and the step is
//! `θ ← θ − decay·θ − step·φ ⊙ u`. A score with |s| < 2⁻¹²⁶ counts as zero; a NaN score counts as not positive and
//! is never selected. A score beyond f32's range is infinite, and ties with others that are: for matrices, whose direction has the
//! size of the gradient, from gradients of about 1e19 on.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::ranges::{check, finite_non_negative, open_unit_interval};

/// An update policy and its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Policy {
    /// φ = 1: the base optimizer itself.
    Plain(Plain),
    /// φ = c where s > 0, else 0 (Liang et al., 2024).
    Cautious(Cautious),
    /// φ = α for the K largest scores, else γ (Chang & Yuan, NeurIPS 2025).
    Mgup(Mgup),
    /// φ = α where s > 0, else γ.
    CautiousMgup(CautiousMgup),
    /// φ = sign(s): the step takes the gradient's sign and the direction's size (Cao et al., 2024).
    Grams(Grams),
}

/// No parameters: φ = 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plain {}

/// No parameters: φ = sign(s), with sign(0) = 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grams {}

/// φ = c where s > 0, else 0; c makes up for what the mask takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cautious {
    /// How c follows from the mask. Default `mean`.
    pub normalizer: Normalizer,
}

/// The factor c of [`Cautious`], over a tensor of d coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalizer {
    /// c = 1 / max(mean(mask), 1e-3): today's C-AdamW and timm.
    #[default]
    Mean,
    /// c = d / (Σ mask + 1): the first C-AdamW and C-Lion.
    Count,
}

/// φ = α for the K = ⌊τ d⌋ largest scores of a tensor, else γ.
///
/// Rank decides, not sign: a negative score inside the top K gets α. Ties go to the lower index, and exactly K
/// coordinates are selected (fewer only when NaN scores leave fewer than K). A tensor of one element has K = 0 at
/// τ = 0.5 and always gets γ.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mgup {
    /// τ, in (0, 1). Default 0.5; the paper finds 0.3 to 0.7 robust.
    pub ratio: f64,
    /// Factor of the selected coordinates, ≥ 0 and finite. Default 1/τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Factor of the others, ≥ 0 and finite. Default τ (the paper); the authors' code uses 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Whether K must be met exactly. Default `exact`.
    pub selection: Selection,
}

/// How [`Mgup`] finds its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Exactly K coordinates, ties to the lowest index.
    #[default]
    Exact,
    /// The scores that are no smaller than the one that a sample of the step takes for the K-th largest; exactly K in
    /// tensors of at most 4,096 coordinates. With n sampled coordinates, 2,048 to 65,536 of them
    /// ([`Sampling`](crate::sampling::Sampling)), the share of a tensor that is selected differs from τ by
    /// √(τ (1 − τ) / n) (one standard deviation, at τ = 0.5 from 1.1 % down to 0.2 %) where the scores of neighbours are
    /// unrelated, and by at most twice that where the four of a sector are equal.
    Approximate,
}

/// φ = α where s > 0, else γ: the policy of the MGUP paper's Cautious-MGUP.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CautiousMgup {
    /// τ, in (0, 1); only the defaults of `alpha` and `gamma` use it. Default 0.5.
    pub ratio: f64,
    /// Factor where s > 0, ≥ 0 and finite. Default 1/τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Factor where s ≤ 0, ≥ 0 and finite. Default τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
}

impl Default for Mgup {
    fn default() -> Self {
        Self { ratio: 0.5, alpha: None, gamma: None, selection: Selection::Exact }
    }
}

impl Default for CautiousMgup {
    fn default() -> Self {
        Self { ratio: 0.5, alpha: None, gamma: None }
    }
}

impl Mgup {
    /// K = ⌊τ d⌋, the floor of the f64 product.
    pub fn k(&self, d: usize) -> usize {
        (self.ratio * d as f64).floor() as usize
    }
}

impl Policy {
    /// The factors (α, γ); (1, 1) for policies that have none.
    pub fn factors(&self) -> (f64, f64) {
        match *self {
            Policy::Mgup(Mgup { ratio, alpha, gamma, .. })
            | Policy::CautiousMgup(CautiousMgup { ratio, alpha, gamma }) => {
                (alpha.unwrap_or(1.0 / ratio), gamma.unwrap_or(ratio))
            }
            Policy::Plain(_) | Policy::Cautious(_) | Policy::Grams(_) => (1.0, 1.0),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if let Policy::Mgup(Mgup { ratio, .. }) | Policy::CautiousMgup(CautiousMgup { ratio, .. }) = *self {
            check("policy.ratio", ratio, open_unit_interval)?;
        }
        // Also where they follow from the ratio: 1/τ may overflow.
        let (alpha, gamma) = self.factors();
        check("policy.alpha", alpha, finite_non_negative)?;
        check("policy.gamma", gamma, finite_non_negative)
    }
}
