//! A recipe: a base optimizer times an update policy, as data.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{AdaGo, AdamW, Base, EpsPlacement, Lion, Muon};
use crate::error::Error;
use crate::json::{self, Unique};
use crate::plan::TensorSpec;
use crate::policy::{Cautious, CautiousMgup, Grams, Mgup, Normalizer, Plain, Policy, Selection};

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
    /// Which direction to move.
    pub base: Base,
    /// How far to move each coordinate.
    pub policy: Policy,
}

const BASES: [&str; 5] = ["adamw", "adamw-torch", "lion", "muon", "adago"];
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

    /// Muon.
    pub fn muon(lr: f64) -> Self {
        Self::plain(Base::Muon(Muon { lr, ..Muon::default() }))
    }

    /// MGUP-Muon with τ = 0.5.
    pub fn mgup_muon(lr: f64) -> Self {
        Self { policy: Policy::Mgup(Mgup::default()), ..Self::muon(lr) }
    }

    /// AdaGO.
    pub fn adago(lr: f64) -> Self {
        Self::plain(Base::Adago(AdaGo { lr, ..AdaGo::default() }))
    }

    /// Grams as its article writes it: ε after the bias correction.
    fn grams() -> Self {
        let adamw = AdamW { eps_placement: EpsPlacement::AfterBiasCorrection, ..AdamW::default() };
        Self { base: Base::Adamw(adamw), policy: Policy::Grams(Grams {}) }
    }

    /// Every name that [`FromStr`] accepts.
    ///
    /// A name reads `[policy-]base[-approximate]`; `approximate` goes with `mgup` only. `grams` is the optimizer of its article: AdamW
    /// with ε after the bias correction, under the policy `grams`; `grams-adamw` adds ε before it, as `adamw` does.
    /// `cautious-lion` has the normalizer `count`, as its authors' code has.
    pub fn presets() -> Vec<String> {
        let mut names = Vec::new();
        for base in BASES {
            for policy in POLICIES {
                if policy == "grams-" && matches!(base, "muon" | "adago") {
                    continue;
                }
                if policy == "grams-" && base == "adamw" {
                    names.push("grams".to_owned());
                }
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
        let article = Self::grams().base;
        if let (Policy::Grams(_), Base::Adamw(b), Base::Adamw(grams)) = (self.policy, self.base, article)
            && (b.eps_placement, b.decay_rate) == (grams.eps_placement, grams.decay_rate)
        {
            return "grams".to_owned();
        }
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
            Base::Muon(_) => "muon",
            Base::Adago(_) => "adago",
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

    /// What a matrix base does with tensors that are no matrices: its fallback under the same policy.
    pub fn fallback(&self) -> Option<Self> {
        Some(Self { base: self.base.fallback()?, ..*self })
    }

    /// What this recipe does with a tensor: itself, or its fallback.
    pub fn on(&self, spec: &TensorSpec) -> Self {
        self.fallback().filter(|_| spec.matrix().is_none()).unwrap_or(*self)
    }

    /// The same recipe with another learning rate, and in proportion to it that of a fallback.
    pub fn with_lr(self, lr: f64) -> Self {
        Self { base: self.base.with_lr(lr), ..self }
    }

    /// Refuses hyper-parameters outside their ranges.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), Error> {
        self.base.validate()?;
        self.policy.validate()?;
        if self.base.newton_schulz().is_some() && matches!(self.policy, Policy::Grams(_)) {
            return Err(Error::Recipe {
                field: "policy.type".to_owned(),
                value: "grams".to_owned(),
                allowed: "plain, cautious, mgup or cautious_mgup with this base: a coordinate's sign means nothing after \
                          orthogonalisation"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Reads a recipe from JSON: `{"base": {"type": …}, "policy": {"type": …}}`, or the name of a preset as a string. Every key but
    /// `type` has a default, a missing `policy` means `plain`, and unknown and repeated keys are refused.
    ///
    /// # Errors
    /// [`Error::RecipeSyntax`] or [`Error::Recipe`], naming the field; [`Error::UnknownPreset`].
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let value: Unique = serde_json::from_str(json::without_mark(text)).map_err(|e| syntax("json", e))?;
        Self::try_from(value)
    }

    /// The recipe as JSON, as [`Recipe::from_json`] reads it.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe holds nothing that JSON cannot")
    }
}

impl TryFrom<Unique> for Recipe {
    type Error = Error;

    fn try_from(Unique(value): Unique) -> Result<Self, Error> {
        Self::try_from(value)
    }
}

impl TryFrom<Value> for Recipe {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
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
        let (kind, fields) = typed("base", base)?;
        let base = match kind.as_str() {
            "adamw" => Base::Adamw(section("base", fields)?),
            "lion" => Base::Lion(section("base", fields)?),
            "muon" => Base::Muon(section("base", fields)?),
            "adago" => Base::Adago(section("base", fields)?),
            _ => return Err(unknown_type("base", &kind, "adamw, lion, muon, adago")),
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
        let unknown = || Error::UnknownPreset { name: name.to_owned(), known: Self::presets().join(", ") };
        if !Self::presets().iter().any(|preset| preset == name) {
            return Err(unknown());
        }
        if name == "grams" {
            return Ok(Self::grams());
        }
        let (full, selection) = match name.strip_suffix("-approximate") {
            Some(rest) => (rest, Selection::Approximate),
            None => (name, Selection::Exact),
        };
        // Longest first: `cautious-mgup-` also starts with `cautious-`.
        let (policy, base) = if let Some(base) = full.strip_prefix("cautious-mgup-") {
            (Policy::CautiousMgup(CautiousMgup::default()), base)
        } else if let Some(base) = full.strip_prefix("cautious-") {
            // As the code of its authors for Lion has it; for AdamW it has the mean.
            let normalizer = if base == "lion" { Normalizer::Count } else { Normalizer::default() };
            (Policy::Cautious(Cautious { normalizer }), base)
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
            "muon" => Base::Muon(Muon::default()),
            "adago" => Base::Adago(AdaGo::default()),
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
