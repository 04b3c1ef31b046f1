//! No policy.

use super::kind::{Factor, PolicyRow, Selects};
use crate::recipe::prelude::*;

/// φ = 1. No parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Plain {}

impl Factor for Plain {
    const ROWS: &'static [PolicyRow] = &[PolicyRow::new("plain", "plain", Selects::Nothing)];

    fn phi<T: Float>(&self, score: &[T], _: u64) -> (Vec<T>, usize) {
        (vec![T::one(); score.len()], 0)
    }
}
