//! MGUP: larger steps for the coordinates whose direction agrees best with the gradient.

use super::kind::{Factor, PolicyRow, Selects};
use super::select::{SMALL, random, sampled, top_k};
use crate::recipe::prelude::*;

/// φ = α for the K = ⌊τ d⌋ largest scores of a tensor of d coordinates, else γ (Chang & Yuan, NeurIPS 2025).
///
/// Rank decides, not sign: a negative score inside the top K gets α. Ties go to the lower index. Exactly K coordinates are selected,
/// fewer only when NaN scores leave fewer than K. A tensor of one element has K = 0 at τ = 0.5 and always gets γ.
#[derive(Debug, Clone, Copy, PartialEq, SmartDefault, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[setters(strip_option)]
#[non_exhaustive]
pub struct Mgup {
    /// τ, in (0, 1). Default 0.5; the paper finds 0.3 to 0.7 robust.
    #[default(0.5)]
    pub ratio: f64,
    /// Factor of the selected coordinates, ≥ 0 and finite. Default 1/τ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Factor of the others, ≥ 0 and finite. Default τ (the paper); the authors' code uses 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Whether exactly K coordinates are selected, about K, or K at random. Default [`Selection::Exact`].
    pub selection: Selection,
}

/// How [`Mgup`] finds its threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Selection {
    /// Exactly K coordinates, ties to the lowest index.
    #[default]
    Exact,
    /// About K coordinates: those with scores at or above a threshold, which a sample of the step's scores estimates. Tensors of at
    /// most 4,096 coordinates select exactly K.
    ///
    /// For a tensor of d coordinates, the sample has about n = (4.5 d)^⅔, at least 2,048 and at most 65,536, in runs of four neighbors.
    /// If the scores of neighbors are independent, the selected share has a standard deviation of √(τ (1 − τ) / n) around τ: 1.1 % to
    /// 0.2 % at τ = 0.5. If the four scores of each run are equal, it is at most twice that.
    Approximate,
    /// K coordinates at random, whatever their scores are: a control for studies, with the same factors and the same K. They depend on the
    /// step and on d, so that a run can be repeated, and are the same in all tensors of one size.
    Random,
}

impl Mgup {
    /// K = ⌊τ d⌋, the floor of the f64 product.
    pub fn k(&self, d: usize) -> usize {
        (self.ratio * d as f64).floor() as usize
    }
}

impl Factor for Mgup {
    const ROWS: &'static [PolicyRow] = &[
        PolicyRow::new("mgup", "mgup", Selects::Exact),
        PolicyRow::new("mgup (approximate)", "mgup", Selects::Sampled),
        PolicyRow::new("mgup (small)", "mgup", Selects::Small),
        PolicyRow::new("mgup (random)", "mgup", Selects::Random),
    ];

    fn row(&self, numel: u64) -> &'static PolicyRow {
        match self.selection {
            Selection::Random => &Self::ROWS[3],
            _ if numel <= SMALL => &Self::ROWS[2],
            Selection::Exact => &Self::ROWS[0],
            Selection::Approximate => &Self::ROWS[1],
        }
    }

    fn split(&self) -> Option<(f64, Option<f64>, Option<f64>)> {
        Some((self.ratio, self.alpha, self.gamma))
    }

    fn phi<T: Float>(&self, score: &[T], t: u64) -> (Vec<T>, usize) {
        let (alpha, gamma) = self.factors();
        let selected = match self.selection {
            Selection::Exact => top_k(score, self.k(score.len())),
            Selection::Approximate => sampled(score, self.k(score.len()), t),
            Selection::Random => random(score.len(), self.k(score.len()), t),
        };
        let count = selected.iter().filter(|&&s| s).count();
        (selected.into_iter().map(|s| real(if s { alpha } else { gamma })).collect(), count)
    }
}
