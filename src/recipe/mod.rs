//! A recipe: a base optimizer times an update policy, as data.

pub mod base;
pub mod float;
pub mod groups;
pub mod guard;
pub mod json;
mod kinds;
pub mod matrix;
pub mod members;
pub mod policy;
pub mod precision;
mod prelude;
mod presets;
pub mod ranges;
pub mod sampling;
pub mod schedule;
pub mod spec;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::base::{AdaGo, AdamW, Base, Lion, Muon};
use self::json::{Unique, section, syntax};
use self::policy::{Mgup, Plain, Policy};
use self::spec::TensorSpec;
use crate::error::{Error, Result};

/// A base optimizer times an update policy.
///
/// From a preset name, from JSON, or from its parts:
///
/// ```
/// use wgpu_optim::Recipe;
///
/// let a: Recipe = "mgup-adamw".parse()?;
/// let b = Recipe::from_json(r#"{ "base": { "type": "adamw" }, "policy": { "type": "mgup" } }"#)?;
/// assert_eq!(a, b);
/// assert_eq!(a, Recipe::mgup_adamw(1e-3));
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unique")]
pub struct Recipe {
    /// The direction of a step.
    pub base: Base,
    /// The factor of each coordinate.
    pub policy: Policy,
}

impl Recipe {
    /// A base without a policy.
    pub fn plain(base: Base) -> Self {
        Self { base, policy: Plain {}.into() }
    }

    /// AdamW with the defaults of the MGUP paper. [`AdamW::torch`] has PyTorch's.
    pub fn adamw(lr: f64) -> Self {
        Self::plain(AdamW { lr, ..AdamW::default() }.into())
    }

    /// MGUP-AdamW with τ = 0.5.
    pub fn mgup_adamw(lr: f64) -> Self {
        Self { policy: Mgup::default().into(), ..Self::adamw(lr) }
    }

    /// Lion.
    pub fn lion(lr: f64) -> Self {
        Self::plain(Lion { lr, ..Lion::default() }.into())
    }

    /// Muon.
    pub fn muon(lr: f64) -> Self {
        Self::plain(Muon { lr, ..Muon::default() }.into())
    }

    /// MGUP-Muon with τ = 0.5.
    pub fn mgup_muon(lr: f64) -> Self {
        Self { policy: Mgup::default().into(), ..Self::muon(lr) }
    }

    /// AdaGO.
    pub fn adago(lr: f64) -> Self {
        Self::plain(AdaGo { lr, ..AdaGo::default() }.into())
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.base.lr()
    }

    /// What steps tensors that are not matrices under a matrix base: its fallback under the same policy.
    pub fn fallback(&self) -> Option<Self> {
        Some(Self { base: self.base.fallback()?, ..*self })
    }

    /// What steps a tensor: this recipe, or its fallback.
    pub fn on(&self, spec: &TensorSpec) -> Self {
        self.fallback().filter(|_| spec.matrix().is_none()).unwrap_or(*self)
    }

    /// The same recipe with another learning rate. The rate of a fallback changes in proportion.
    pub fn with_lr(self, lr: f64) -> Self {
        Self { base: self.base.with_lr(lr), ..self }
    }

    /// Refuses hyper-parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        self.base.validate("base")?;
        self.policy.validate(&self.base)
    }

    /// Reads a recipe from JSON: `{"base": {"type": …}, "policy": {"type": …}}`, or the name of a preset as a string.
    ///
    /// A byte order mark, which some editors put first, is skipped. Every key but `type` has a default, and a missing `policy` means
    /// `plain`. Unknown and repeated keys are refused.
    ///
    /// # Errors
    /// [`Error::RecipeSyntax`] or [`Error::Recipe`], naming the field; [`Error::UnknownPreset`].
    pub fn from_json(text: &str) -> Result<Self> {
        let value: Unique =
            serde_json::from_str(text.strip_prefix('\u{feff}').unwrap_or(text)).map_err(|e| syntax("json", e))?;
        Self::try_from(value)
    }

    /// The recipe as JSON that [`Recipe::from_json`] reads.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe holds nothing that JSON cannot")
    }
}

impl TryFrom<Unique> for Recipe {
    type Error = Error;

    fn try_from(Unique(value): Unique) -> Result<Self> {
        Self::try_from(value)
    }
}

impl TryFrom<Value> for Recipe {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        if let Value::String(name) = value {
            return name.parse();
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Sections {
            base: Value,
            #[serde(default = "plain")]
            policy: Value,
        }
        fn plain() -> Value {
            serde_json::json!({ "type": "plain" })
        }
        let Sections { base, policy } = section("recipe", value)?;
        let recipe = Self { base: Base::read(base)?, policy: Policy::read(policy)? };
        recipe.validate()?;
        Ok(recipe)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
