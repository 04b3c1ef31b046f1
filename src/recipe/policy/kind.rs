//! What each policy states: its rows in the table of kinds, its presets, its factors, its CPU twin.

use crate::recipe::prelude::*;

/// A row of the table of kinds: what plans and kernels know about a policy, or about a variant of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRow {
    /// The name in JSON. Variants after the first add a word, as in `mgup (small)`.
    pub name: &'static str,
    /// The file in `shaders/policy`, without its ending. Several rows may share one.
    pub shader: &'static str,
    /// What must be known about the scores of a whole tensor.
    pub selects: Selects,
    /// Whether a step counts coordinates, for [`GpuOptimizer::read_selected`](crate::GpuOptimizer::read_selected).
    pub counts: bool,
    /// Why it does not work with bases that orthogonalize matrices; `None` if it does.
    pub no_matrices: Option<&'static str>,
    /// Whether its factors follow from the sign of a score.
    pub of_signs: bool,
    /// The WGSL of a custom policy, which replaces the shader file. `None` for a built-in policy.
    pub text: Option<&'static str>,
}

impl PolicyRow {
    /// The module `package::policy` of a custom policy. Empty for a built-in policy.
    pub(crate) fn text(&self) -> &'static str {
        self.text.unwrap_or_default()
    }

    /// A row of a policy that works with any base.
    pub(super) const fn new(name: &'static str, shader: &'static str, selects: Selects) -> Self {
        let counts = !matches!(selects, Selects::Nothing | Selects::Positive);
        let of_signs = matches!(selects, Selects::Positive | Selects::PositiveCounted);
        Self { name, shader, selects, counts, no_matrices: None, of_signs, text: None }
    }
}

/// What a policy must know about the scores of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selects {
    /// Nothing: the factor follows from the coordinate's own score.
    Nothing,
    /// Whether the coordinate's own score is positive.
    Positive,
    /// Which scores are positive, counted before the step.
    PositiveCounted,
    /// The K largest scores.
    Exact,
    /// About the K largest scores: those above a threshold that a sample of the step estimates.
    Sampled,
    /// The K largest scores of a tensor that one workgroup steps.
    Small,
    /// Nothing: K coordinates are taken at random.
    Random,
}

/// A policy: the parameters of a factor per coordinate.
pub(crate) trait Factor: Copy {
    /// Rows of the table of kinds, one per variant.
    const ROWS: &'static [PolicyRow] = &[];

    /// The row of this variant, for a tensor of `numel` coordinates.
    fn row(&self, _numel: u64) -> &'static PolicyRow {
        &Self::ROWS[0]
    }

    /// τ, α and γ, for policies that have them.
    fn split(&self) -> Option<(f64, Option<f64>, Option<f64>)> {
        None
    }

    /// (α, γ): 1/τ and τ by default; (1, 1) for policies without them.
    fn factors(&self) -> (f64, f64) {
        self.split().map_or((1.0, 1.0), |(ratio, alpha, gamma)| (alpha.unwrap_or(1.0 / ratio), gamma.unwrap_or(ratio)))
    }

    /// φ of a tensor's scores in step `t`, and how many coordinates were counted.
    fn phi<T: Float>(&self, score: &[T], t: u64) -> (Vec<T>, usize);
}
