//! Assignment of tensors to parameter groups.

use std::fmt;

use wildmatch::WildMatch;

use super::Recipe;
use super::groups::ParamGroups;
use super::prelude::*;
use super::spec::TensorSpec;

/// The tensors of a parameter group.
pub struct Members(Choice);

enum Choice {
    Named(Vec<String>),
    Matching(Box<dyn Fn(&TensorSpec) -> bool>),
    Rest,
}

impl Members {
    /// Tensors whose name fits one of these patterns: `*` stands for any text, `?` for any character.
    pub fn named<S: Into<String>>(patterns: impl IntoIterator<Item = S>) -> Self {
        Self(Choice::Named(patterns.into_iter().map(Into::into).collect()))
    }

    /// Tensors that a function accepts, for example by their rank.
    ///
    /// ```
    /// use wgpu_optim::{Members, ParamGroups, Recipe, TensorSpec};
    ///
    /// let mut specs = [TensorSpec::new("fc.weight", [64, 32]), TensorSpec::new("fc.bias", [64])];
    /// let groups = ParamGroups::assign(&mut specs, [
    ///     (Recipe::adamw(1e-3).weight_decay(0.1), Members::matching(|spec| spec.shape.len() > 1)),
    ///     (Recipe::adamw(1e-3), Members::rest()),
    /// ])?;
    /// assert_eq!(specs.map(|spec| spec.group), [0, 1]);
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    pub fn matching(accepts: impl Fn(&TensorSpec) -> bool + 'static) -> Self {
        Self(Choice::Matching(Box::new(accepts)))
    }

    /// Tensors that are not in another group.
    pub fn rest() -> Self {
        Self(Choice::Rest)
    }

    fn has(&self, spec: &TensorSpec) -> bool {
        match &self.0 {
            Choice::Named(patterns) => patterns.iter().any(|pattern| fits(pattern, spec)),
            Choice::Matching(accepts) => accepts(spec),
            Choice::Rest => false,
        }
    }
}

fn fits(pattern: &str, spec: &TensorSpec) -> bool {
    WildMatch::new(pattern).matches(&spec.name)
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Named(patterns) => f.debug_tuple("named").field(patterns).finish(),
            Choice::Matching(_) => f.write_str("matching(..)"),
            Choice::Rest => f.write_str("rest"),
        }
    }
}

impl ParamGroups {
    /// Groups tensors by name or by any other property: sets the group of every spec.
    ///
    /// ```
    /// use wgpu_optim::{Members, ParamGroups, Recipe, TensorSpec};
    ///
    /// let mut specs = [TensorSpec::new("fc.weight", [64, 32]), TensorSpec::new("fc.bias", [64])];
    /// let decayed = Recipe::from_json(r#"{"base": {"type": "adamw", "weight_decay": 0.1}}"#)?;
    /// let groups = ParamGroups::assign(&mut specs, [
    ///     (decayed, Members::rest()),
    ///     (Recipe::adamw(1e-3), Members::named(["*.bias", "*norm*"])),
    /// ]);
    /// // A pattern that fits nothing is an error, because it is usually a typing mistake.
    /// assert!(groups.unwrap_err().to_string().contains("*norm*"));
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Tensor`] names a tensor that is in two groups, or in none. [`Error::Group`] names a pattern that fits no
    /// tensor, and refuses a second [`Members::rest`].
    pub fn assign(specs: &mut [TensorSpec], groups: impl IntoIterator<Item = (Recipe, Members)>) -> Result<Self> {
        let (recipes, members): (Vec<_>, Vec<_>) = groups.into_iter().unzip();
        let rests: Vec<_> = (0..members.len()).filter(|&g| matches!(members[g].0, Choice::Rest)).collect();
        let several = || format!("groups {rests:?} all use `Members::rest()`; only one may");
        ensure!(rests.len() < 2, Error::Group { group: rests[1], reason: several() });
        for (group, members) in members.iter().enumerate() {
            let Choice::Named(patterns) = &members.0 else { continue };
            let is_idle = |pattern: &&String| !specs.iter().any(|spec| fits(pattern, spec));
            if let Some(idle) = patterns.iter().find(is_idle) {
                return Err(Error::Group { group, reason: format!("pattern `{idle}` matches no tensor name") });
            }
        }
        let group_of = |spec: &TensorSpec| {
            let own: Vec<_> = (0..members.len()).filter(|&g| members[g].has(spec)).collect();
            let reason = match (&own[..], &rests[..]) {
                (&[group], _) | ([], &[group]) => return Ok(group),
                ([], _) => format!("it is in none of the {} groups; add a group of `Members::rest()`", members.len()),
                (several, _) => format!("it is in groups {several:?}, but must be in one"),
            };
            Err(Error::Tensor { tensor: spec.name.clone(), reason })
        };
        let chosen = specs.iter().map(group_of).collect::<Result<Vec<_>, _>>()?;
        specs.iter_mut().zip(chosen).for_each(|(spec, group)| spec.group = group);
        Ok(recipes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<TensorSpec> {
        let shapes: [(&str, &[usize]); 4] =
            [("embed.weight", &[9, 4]), ("a.weight", &[4, 4]), ("a.bias", &[4]), ("norm.gamma", &[4])];
        shapes.map(|(name, shape)| TensorSpec::new(name, shape)).into()
    }

    fn assign(members: Vec<Members>) -> Result<Vec<usize>, String> {
        let mut specs = specs();
        let groups = members.into_iter().map(|members| (Recipe::adamw(1e-3), members));
        let groups = ParamGroups::assign(&mut specs, groups).map_err(|error| error.to_string())?;
        assert!(groups.recipes().len() > specs.iter().map(|spec| spec.group).max().unwrap());
        Ok(specs.into_iter().map(|spec| spec.group).collect())
    }

    #[test]
    fn every_tensor_is_in_one_group() {
        let matrices = || Members::matching(|spec| spec.shape.len() == 2);
        assert_eq!(assign(vec![Members::rest()]).unwrap(), [0; 4]);
        assert_eq!(assign(vec![matrices(), Members::rest()]).unwrap(), [0, 0, 1, 1]);
        assert_eq!(assign(vec![matrices(), Members::named(["*.bias", "norm.?amma"])]).unwrap(), [0, 0, 1, 1]);
        assert_eq!(assign(vec![Members::rest(), Members::named(["embed*"])]).unwrap(), [1, 0, 0, 0]);
        for (members, words) in [
            (vec![matrices(), Members::named(["a.*"]), Members::rest()], "tensor `a.weight`: it is in groups [0, 1]"),
            (vec![matrices()], "tensor `a.bias`: it is in none of the 1 groups"),
            (vec![], "tensor `embed.weight`: it is in none of the 0 groups"),
            (vec![Members::rest(), Members::rest()], "groups [0, 1]"),
            (
                vec![Members::named(["*.biass"]), Members::rest()],
                "parameter group 0: pattern `*.biass` matches no tensor name",
            ),
        ] {
            let message = assign(members).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
