//! Which parameters a recipe steps.

use burn::module::{ParamGroup, ParamId};

/// Selects parameters: by path or id through Burn's [`ParamGroup`], or by rank.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Select {
    /// Parameters that a Burn group matches: `ParamGroup::from_predicate("bias")`, `ParamGroup::from_regex(…)`.
    Group(ParamGroup),
    /// Parameters of this rank: 2 for matrices, such as the weights of linear layers and embeddings.
    Rank(usize),
    /// Parameters of any other rank.
    NotRank(usize),
}

impl Select {
    /// Whether it selects a parameter of this id, path in the model and rank.
    ///
    /// ```
    /// use burn::module::{ParamGroup, ParamId};
    /// use wgpu_optim_burn::Select;
    ///
    /// let head = Select::from(ParamGroup::from_predicate("head"));
    /// assert!(head.matches(ParamId::new(), "head.weight", 2) && !head.matches(ParamId::new(), "body.weight", 2));
    /// ```
    pub fn matches(&self, id: ParamId, path: &str, rank: usize) -> bool {
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
