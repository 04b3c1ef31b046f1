//! A recipe: a base optimizer times an update policy, as data.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{AdamW, Base, Lion};
use crate::error::Error;
use crate::policy::{Cautious, CautiousMgup, Grams, Mgup, Plain, Policy, Selection};

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
#[serde(try_from = "Value")]
pub struct Recipe {
    /// Which direction to move.
    pub base: Base,
    /// How far to move each coordinate.
    pub policy: Policy,
}

const BASES: [&str; 3] = ["adamw", "adamw-torch", "lion"];
const POLICIES: [&str; 5] = ["", "cautious-", "mgup-", "cautious-mgup-", "grams-"];

impl Recipe {
    /// A base without a policy.
    pub fn plain(base: Base) -> Self {
        Self { base, policy: Policy::Plain(Plain {}) }
    }

    /// AdamW as the MGUP paper has it; for PyTorch's see [`AdamW::torch`].
    pub fn adamw(lr: f64) -> Self {
        Self::plain(Base::Adamw(AdamW { lr, ..AdamW::default() }))
    }

    /// MGUP-AdamW with τ = 0.5.
    pub fn mgup_adamw(lr: f64) -> Self {
        Self { policy: Policy::Mgup(Mgup::default()), ..Self::adamw(lr) }
    }

    /// Lion.
    pub fn lion(lr: f64) -> Self {
        Self::plain(Base::Lion(Lion { lr, ..Lion::default() }))
    }

    /// Every name that [`FromStr`] accepts, besides `grams`, which is short for `grams-adamw`.
    ///
    /// A name reads `[policy-]base[-approximate]`; `approximate` goes with `mgup` only.
    pub fn presets() -> Vec<String> {
        let mut names = Vec::new();
        for base in BASES {
            for policy in POLICIES {
                names.push(format!("{policy}{base}"));
                if policy == "mgup-" {
                    names.push(format!("{policy}{base}-approximate"));
                }
            }
        }
        names
    }

    /// The preset name of this pair of base and policy, whatever its hyper-parameters.
    pub fn name(&self) -> String {
        let policy = match self.policy {
            Policy::Plain(_) => "",
            Policy::Cautious(_) => "cautious-",
            Policy::Mgup(_) => "mgup-",
            Policy::CautiousMgup(_) => "cautious-mgup-",
            Policy::Grams(_) => "grams-",
        };
        let torch = AdamW::torch();
        let base = match self.base {
            Base::Adamw(b) if b.eps_placement == torch.eps_placement && b.decay_rate == torch.decay_rate => {
                "adamw-torch"
            }
            Base::Adamw(_) => "adamw",
            Base::Lion(_) => "lion",
        };
        let selection = match self.policy {
            Policy::Mgup(Mgup { selection: Selection::Approximate, .. }) => "-approximate",
            _ => "",
        };
        format!("{policy}{base}{selection}")
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.base.lr()
    }

    /// The same recipe with another learning rate.
    pub fn with_lr(self, lr: f64) -> Self {
        Self { base: self.base.with_lr(lr), ..self }
    }

    /// Refuses hyper-parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.base.validate()?;
        self.policy.validate()
    }

    /// Reads a recipe from JSON: `{"base": {"type": …}, "policy": {"type": …}}`. Every key but `type` has a default,
    /// a missing `policy` means `plain`, and unknown keys are refused.
    ///
    /// # Errors
    /// [`Error::RecipeSyntax`] or [`Error::Recipe`], naming the field.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value: Value = serde_json::from_str(text).map_err(|e| syntax("json", e))?;
        Self::try_from(value)
    }

    /// The recipe as JSON, as [`Recipe::from_json`] reads it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe holds nothing that JSON cannot")
    }
}

impl TryFrom<Value> for Recipe {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
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
        let (kind, fields) = typed("base", base)?;
        let base = match kind.as_str() {
            "adamw" => Base::Adamw(section("base", fields)?),
            "lion" => Base::Lion(section("base", fields)?),
            _ => return Err(unknown_type("base", &kind, "adamw, lion")),
        };
        let (kind, fields) = typed("policy", policy)?;
        let policy = match kind.as_str() {
            "plain" => Policy::Plain(section("policy", fields)?),
            "cautious" => Policy::Cautious(section("policy", fields)?),
            "mgup" => Policy::Mgup(section("policy", fields)?),
            "cautious_mgup" => Policy::CautiousMgup(section("policy", fields)?),
            "grams" => Policy::Grams(section("policy", fields)?),
            _ => {
                return Err(unknown_type("policy", &kind, "plain, cautious, mgup, cautious_mgup, grams"));
            }
        };
        let recipe = Self { base, policy };
        recipe.validate()?;
        Ok(recipe)
    }
}

impl FromStr for Recipe {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownPreset {
            name: name.to_owned(),
            known: format!("grams, {}", Self::presets().join(", ")),
        };
        let full = if name == "grams" { "grams-adamw" } else { name };
        if !Self::presets().iter().any(|preset| preset == full) {
            return Err(unknown());
        }
        let (full, selection) = match full.strip_suffix("-approximate") {
            Some(rest) => (rest, Selection::Approximate),
            None => (full, Selection::Exact),
        };
        // Longest first: `cautious-mgup-` also starts with `cautious-`.
        let (policy, base) = if let Some(base) = full.strip_prefix("cautious-mgup-") {
            (Policy::CautiousMgup(CautiousMgup::default()), base)
        } else if let Some(base) = full.strip_prefix("cautious-") {
            (Policy::Cautious(Cautious::default()), base)
        } else if let Some(base) = full.strip_prefix("mgup-") {
            (Policy::Mgup(Mgup { selection, ..Mgup::default() }), base)
        } else if let Some(base) = full.strip_prefix("grams-") {
            (Policy::Grams(Grams {}), base)
        } else {
            (Policy::Plain(Plain {}), full)
        };
        let base = match base {
            "adamw" => Base::Adamw(AdamW::default()),
            "adamw-torch" => Base::Adamw(AdamW::torch()),
            "lion" => Base::Lion(Lion::default()),
            _ => return Err(unknown()),
        };
        Ok(Self { base, policy })
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// Parameter groups: a recipe each, and what holds for all of them. A tensor names its group by index, and a
/// [`Recipe`] alone is one group.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamGroups {
    recipes: Vec<Recipe>,
    max_grad_norm: Option<f64>,
}

impl ParamGroups {
    /// The groups' recipes, in order.
    pub fn recipes(&self) -> &[Recipe] {
        &self.recipes
    }

    pub(crate) fn recipes_mut(&mut self) -> &mut [Recipe] {
        &mut self.recipes
    }

    /// Clips the gradients of every step to a global norm, by the factor of `torch.nn.utils.clip_grad_norm_`: all
    /// gradients of the step, of all tensors and groups, are multiplied by min(1, max_norm / (‖g‖₂ + 1e-6)) as they are read; the
    /// caller's buffers keep theirs. Default off, which costs nothing; on, it costs 4 bytes a parameter, a
    /// dispatch for each kind of recipe (and page), and one more.
    ///
    /// `max_norm` is > 0 and finite; [`GpuOptimizer::new`](crate::GpuOptimizer::new) refuses anything else. If the norm
    /// is not finite in f32, finite gradients count as 0, and the others spoil their own coordinates.
    pub fn with_max_grad_norm(self, max_norm: f64) -> Self {
        Self { max_grad_norm: Some(max_norm), ..self }
    }

    /// The norm to which gradients are clipped.
    pub fn max_grad_norm(&self) -> Option<f64> {
        self.max_grad_norm
    }
}

impl From<Recipe> for ParamGroups {
    fn from(recipe: Recipe) -> Self {
        vec![recipe].into()
    }
}

impl From<Vec<Recipe>> for ParamGroups {
    fn from(recipes: Vec<Recipe>) -> Self {
        Self { recipes, max_grad_norm: None }
    }
}

fn syntax(field: impl Into<String>, message: impl fmt::Display) -> Error {
    Error::RecipeSyntax { field: field.into(), message: message.to_string() }
}

fn unknown_type(section: &str, kind: &str, known: &str) -> Error {
    Error::Recipe {
        field: format!("{section}.type"),
        value: format!("`{kind}`"),
        allowed: format!("one of {known}"),
    }
}

/// Takes `type` out of a section, so that what remains are the fields of that type.
fn typed(name: &str, section: Value) -> Result<(String, Value), Error> {
    let Value::Object(mut fields) = section else {
        return Err(syntax(name, "must be an object with a `type`"));
    };
    match fields.remove("type") {
        Some(Value::String(kind)) => Ok((kind, Value::Object(fields))),
        Some(other) => Err(syntax(format!("{name}.type"), format!("must be a string, not {other}"))),
        None => Err(syntax(name, "lacks its `type`")),
    }
}

fn section<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let path = e.path().to_string();
        let field = if path == "." { name.to_owned() } else { format!("{name}.{path}") };
        syntax(field, e.into_inner())
    })
}
