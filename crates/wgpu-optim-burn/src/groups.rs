//! Which parameters a recipe steps.

use burn::module::{ParamGroup, ParamId};

/// A choice of parameters: by path or id, as Burn's [`ParamGroup`] has it, or by rank.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Select {
    /// Those that a Burn group matches: `ParamGroup::from_predicate("bias")`, `ParamGroup::from_regex(…)`.
    Group(ParamGroup),
    /// Those of this rank: 2 for matrices, as of linear layers and embeddings.
    Rank(usize),
    /// Those whose rank is not this.
    NotRank(usize),
}

impl Select {
    pub(crate) fn matches(&self, id: ParamId, path: &str, rank: usize) -> bool {
        match self {
            Self::Group(group) => group.matches(&id, Some(path)),
            Self::Rank(wanted) => rank == *wanted,
            Self::NotRank(unwanted) => rank != *unwanted,
        }
    }
}

impl From<ParamGroup> for Select {
    fn from(group: ParamGroup) -> Self {
        Self::Group(group)
    }
}
