//! Grams: the sign of the gradient and the size of the direction.

use super::kind::{Factor, PolicyRow, Selects};
use crate::recipe::prelude::*;

/// φ = sign(s), with sign(0) = 0: the step has the gradient's sign and the direction's size (Cao et al., 2024, arXiv 2412.17107).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Grams {}

impl Factor for Grams {
    const ROWS: &'static [PolicyRow] = &[PolicyRow {
        no_matrices: Some("a coordinate's sign means nothing after orthogonalization"),
        of_signs: true,
        ..PolicyRow::new("grams", "grams", Selects::Nothing)
    }];

    fn phi<T: Float>(&self, score: &[T], _: u64) -> (Vec<T>, usize) {
        (score.iter().map(|&s| sign(s)).collect(), 0)
    }
}
