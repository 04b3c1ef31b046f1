//! Update policies: the factor of each coordinate, from how well direction and gradient agree.
//!
//! Every policy maps the alignment score s = u ⊙ g of a tensor to a factor φ per coordinate. The step is
//! `θ ← θ − decay·θ − step·φ ⊙ u`.
//!
//! - A score with |s| < 2⁻¹²⁶ counts as zero.
//! - A NaN score counts as not positive and is never selected.
//! - A score beyond f32's range is infinite, and ties with other infinite scores. The direction of matrices has the size of the
//!   gradient, so gradients of about 1e19 reach this.
//!
//! `ARCHITECTURE.md` lists the steps to add one.

mod cautious;
mod cautious_mgup;
mod custom;
mod grams;
mod kind;
mod mgup;
mod plain;
mod select;

pub use custom::CustomPolicy;
pub(crate) use kind::Factor;
#[doc(hidden)]
pub use kind::{PolicyRow, Selects};
pub(crate) use select::sampled_cut;
#[doc(hidden)]
pub use select::{SMALL, random, sampled, top_k};

use super::base::{Base, BaseKind, Recall};
use super::kinds::kinds;
use crate::recipe::prelude::*;

kinds! { $
    /// An update policy and its parameters.
    Policy, PolicyKind, PolicyRow, "policy", CustomPolicy: "A custom policy, which the program supplies as WGSL.";
    Plain(plain::Plain): "φ = 1: the base optimizer itself.",
    Cautious(cautious::Cautious): "φ = c where s > 0, else 0 (Liang et al., 2024).",
    Mgup(mgup::Mgup): "φ = α for the K largest scores, else γ (Chang & Yuan, NeurIPS 2025).",
    CautiousMgup(cautious_mgup::CautiousMgup): "φ = α where s > 0, else γ.",
    Grams(grams::Grams): "φ = sign(s): the step takes the gradient's sign and the direction's size (Cao et al., 2024).",
}

impl Policy {
    /// The factors (α, γ); (1, 1) for policies without them.
    pub fn factors(&self) -> (f64, f64) {
        each!(self, p => p.factors())
    }

    /// The row for a tensor of `numel` coordinates.
    fn row(&self, numel: u64) -> &'static PolicyRow {
        each!(self, p => p.row(numel))
    }

    /// Whether the factor is normalized by counts, see [`Normalizer::Count`].
    #[doc(hidden)]
    pub fn count_normalizer(&self) -> bool {
        matches!(self, Self::Cautious(Cautious { normalizer: Normalizer::Count }))
    }

    /// K: how many of `numel` coordinates `mgup` selects; 0 for other policies.
    pub fn k(&self, numel: u64) -> u64 {
        if let Self::Mgup(mgup) = self { mgup.k(numel as usize) as u64 } else { 0 }
    }

    /// Refuses parameters out of range, and a policy that does not work with this base.
    pub(crate) fn validate(&self, base: &Base) -> Result<()> {
        if let Some((ratio, ..)) = each!(self, p => p.split()) {
            let (alpha, gamma) = self.factors();
            check("policy.ratio", ratio, OPEN_UNIT)?;
            // Also those that follow from the ratio: 1/τ may overflow.
            check("policy.alpha", alpha, NOT_NEGATIVE)?;
            check("policy.gamma", gamma, NOT_NEGATIVE)?;
        }
        if let Self::Custom(custom) = self {
            custom.validate()?;
            custom.definition().check_name(Self::members().map(|policy| policy.type_name()))?;
        }
        let row = BaseKind::of(base).row();
        if row.recall == Recall::Lost && self.row(u64::MAX).selects == Selects::Exact {
            if let Base::Custom(custom) = base {
                let allowed = "one that defines `direction_of` or declares `signs`, because exact `mgup` needs the direction again after \
                               the state is updated; or use the selection `approximate`";
                let value = format!("`{}`", custom.name());
                return Err(Error::Recipe { field: "base".to_owned(), value, allowed: allowed.to_owned() });
            }
            let allowed = "0 with exact `mgup` and this base, which needs the parameter before the step to find a direction again; use \
                           `decoupled_weight_decay`, or the selection `approximate`";
            let (field, value) = ("base.weight_decay".to_owned(), number(base.weight_decay()));
            return Err(Error::Recipe { field, value, allowed: allowed.to_owned() });
        }
        let refused = |policy: &Self| {
            let own = policy.row(u64::MAX);
            own.no_matrices.filter(|_| row.is_matrix).or(row.no_signs.filter(|_| own.of_signs))
        };
        let Some(reason) = refused(self) else { return Ok(()) };
        let others = Self::members().filter(|policy| refused(policy).is_none());
        let others: Vec<_> = others.map(|policy| policy.type_name()).collect();
        let (last, first) = others.split_last().expect("plain works with all bases");
        let allowed = format!("{} or {last} with this base: {reason}", first.join(", "));
        Err(Error::Recipe { field: "policy.type".to_owned(), value: self.type_name().to_owned(), allowed })
    }

    /// The same with the other normalizer, and a word for it, for a policy that has one.
    pub(crate) fn other_normalizer(&self) -> Option<(&'static str, Self)> {
        let Self::Cautious(Cautious { normalizer }) = self else { return None };
        let (word, normalizer) = match normalizer {
            Normalizer::Mean => ("count", Normalizer::Count),
            Normalizer::Count => ("mean", Normalizer::Mean),
        };
        Some((word, Cautious { normalizer }.into()))
    }

    /// The CPU twin: φ of a tensor's scores in step `t`, and how many coordinates were selected.
    pub(crate) fn phi<T: Float>(&self, score: &[T], t: u64) -> (Vec<T>, usize) {
        each!(self, p => p.phi(score, t))
    }
}

impl PolicyKind {
    /// The kind of a policy, for a tensor of `numel` coordinates.
    pub fn of(policy: &Policy, numel: u64) -> Self {
        Self::at(policy.row(numel))
    }

    /// What it must know about the scores of a tensor.
    pub fn selects(self) -> Selects {
        self.row().selects
    }

    /// Whether it selects with the help of a sample.
    pub fn samples(self) -> bool {
        self.bounds() > 0
    }

    /// Cuts that it takes from the sample.
    pub(crate) fn bounds(self) -> u64 {
        match self.selects() {
            Selects::Exact => 2,
            Selects::Sampled => 1,
            _ => 0,
        }
    }

    /// Bytes per chunk that its kernels hand to each other within a step, as bits per coordinate.
    pub(crate) fn bits_bytes(self, base: BaseKind) -> u64 {
        let bits = match self.selects() {
            Selects::Exact => 2,           // what the stream decided
            Selects::PositiveCounted => 1, // whether the score is positive
            // Whether φ = α, from before the orthogonalization to after it.
            Selects::Sampled | Selects::Small | Selects::Positive => u64::from(base.is_matrix()),
            Selects::Nothing | Selects::Random => 0,
        };
        bits * super::spec::CHUNK / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        let names: Vec<_> = PolicyKind::all().map(|kind| kind.row().name).collect();
        let expected = [
            "plain",
            "cautious",
            "mgup",
            "mgup (approximate)",
            "mgup (small)",
            "mgup (random)",
            "cautious_mgup",
            "grams",
        ];
        assert_eq!(names, expected);
        assert!(PolicyKind::all().is_sorted());
        for policy in Policy::members() {
            assert_eq!(serde_json::to_value(policy).unwrap()["type"], policy.type_name());
        }
    }
}
