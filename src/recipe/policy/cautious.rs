//! Cautious: only coordinates whose direction agrees with the gradient move.

use super::kind::{Factor, PolicyRow, Selects};
use crate::recipe::prelude::*;

/// φ = c where s > 0, else 0 (Liang et al., 2024, arXiv 2411.16085). The factor c compensates for the coordinates that the mask sets to 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Setters)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Cautious {
    /// How c follows from the mask. Default `mean`.
    pub normalizer: Normalizer,
}

/// The factor c of [`Cautious`], over a tensor of d coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Normalizer {
    /// c = 1 / max(mean(mask), 1e-3): today's C-AdamW and timm.
    #[default]
    Mean,
    /// c = d / (Σ mask + 1): the first C-AdamW and C-Lion.
    Count,
}

impl Factor for Cautious {
    const ROWS: &'static [PolicyRow] = &[PolicyRow::new("cautious", "cautious", Selects::PositiveCounted)];

    fn phi<T: Float>(&self, score: &[T], _: u64) -> (Vec<T>, usize) {
        let mask: Vec<bool> = score.iter().map(|&s| sign(s) > T::zero()).collect();
        let (positive, d) = (mask.iter().filter(|&&p| p).count(), real::<T>(score.len() as f64));
        let sum = real::<T>(positive as f64);
        let c = match self.normalizer {
            Normalizer::Mean => T::one() / (sum / d).max(real(1e-3)),
            Normalizer::Count => d / (sum + T::one()),
        };
        (mask.into_iter().map(|p| if p { c } else { T::zero() }).collect(), positive)
    }
}
