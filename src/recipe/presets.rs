//! Presets: the pairs of a base and a policy that have a name.

use std::str::FromStr;

use super::Recipe;
use super::base::{AdamW, Base, DecayRate, EpsPlacement};
use super::policy::{Cautious, Mgup, Normalizer, Plain, Policy, Selection};
use super::prelude::*;

/// How PyTorch's AdamW and that of the Grams paper place ε, and what their decay follows.
const TORCH: (EpsPlacement, DecayRate) = (EpsPlacement::AfterBiasCorrection, DecayRate::Base);
const GRAMS: (EpsPlacement, DecayRate) = (EpsPlacement::AfterBiasCorrection, DecayRate::BiasCorrected);

impl Recipe {
    /// Every name that [`FromStr`] accepts.
    ///
    /// A name reads `[policy-]base[-approximate]`; `approximate` goes with `mgup` only, as does `random`. Underscores count as hyphens.
    ///
    /// - `grams` is the optimizer of its paper: AdamW with ε after the bias correction, under the policy `grams`. `grams-adamw` adds ε
    ///   before it, as `adamw` does.
    /// - `cautious-lion` has the normalizer `count`, as its authors' code does.
    ///
    /// ```
    /// use wgpu_optim::{Error, Recipe};
    ///
    /// assert!(Recipe::presets().contains(&"mgup-muon".to_owned()));
    /// assert_eq!("mgup-lion".parse::<Recipe>()?.with_lr(3e-4), Recipe::lion(3e-4).mgup());
    /// # Ok::<(), Error>(())
    /// ```
    pub fn presets() -> Vec<String> {
        all().map(|recipe| recipe.name()).collect()
    }

    /// The preset name of this pair of base and policy, whatever its hyper-parameters are.
    pub fn name(&self) -> String {
        let adamw = match self.base {
            Base::Adamw(adamw) => Some((adamw.eps_placement, adamw.decay_rate)),
            _ => None,
        };
        let base = if adamw == Some(TORCH) { "adamw-torch" } else { self.base.type_name() }.replace('_', "-");
        match self.policy {
            Policy::Plain(_) => base,
            Policy::Grams(_) if adamw == Some(GRAMS) => "grams".to_owned(),
            Policy::Mgup(Mgup { selection: Selection::Approximate, .. }) => format!("mgup-{base}-approximate"),
            Policy::Mgup(Mgup { selection: Selection::Random, .. }) => format!("mgup-{base}-random"),
            policy => format!("{}-{base}", policy.type_name().replace('_', "-")),
        }
    }
}

/// The presets: every policy with every base, where they work together.
fn all() -> impl Iterator<Item = Recipe> {
    let bases = Base::members().flat_map(|base| match base {
        Base::Adamw(_) => vec![base, AdamW::torch().into()],
        _ => vec![base],
    });
    let pairs = bases.flat_map(|base| Policy::members().map(move |policy| Recipe::new(base, policy)));
    pairs.flat_map(variants).filter(|recipe| recipe.validate().is_ok())
}

/// The presets of a base and a policy.
fn variants(recipe: Recipe) -> Vec<Recipe> {
    match (recipe.base, recipe.policy) {
        (Base::Lion(_), Policy::Cautious(_)) => {
            vec![Recipe { policy: Cautious { normalizer: Normalizer::Count }.into(), ..recipe }]
        }
        (_, Policy::Mgup(mgup)) => {
            let of = |selection| Recipe { policy: Mgup { selection, ..mgup }.into(), ..recipe };
            [Selection::Exact, Selection::Approximate, Selection::Random].map(of).into()
        }
        (Base::Adamw(adamw), Policy::Grams(_)) if adamw == AdamW::default() => {
            let paper = AdamW { eps_placement: EpsPlacement::AfterBiasCorrection, ..adamw };
            vec![Recipe { base: paper.into(), ..recipe }, recipe]
        }
        _ => vec![recipe],
    }
}

/// The names of presets, in short: there are too many for a message.
fn known() -> String {
    let plain: Vec<_> =
        all().filter(|recipe| recipe.policy == Plain::default().into()).map(|recipe| recipe.name()).collect();
    format!(
        "{}; each alone or after `mgup-`, as in `mgup-adamw`, and most after `cautious-`, `cautious-mgup-` or `grams-`; \
         `mgup-` names may end in `-approximate` or `-random`",
        plain.join(", ")
    )
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::UnknownPreset { name: name.to_owned(), known: known() };
        // JSON and documents name types with underscores.
        all().find(|preset| preset.name() == name.replace('_', "-")).ok_or_else(unknown)
    }
}
