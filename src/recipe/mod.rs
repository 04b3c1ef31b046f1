//! A recipe: a base optimizer times an update policy, as data.

pub mod average;
pub mod base;
pub mod custom;
pub mod float;
pub mod groups;
pub mod guard;
pub mod json;
mod kinds;
pub mod launch;
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
pub mod state;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::base::{AdaGo, AdamW, Base, Direction, Lion, Muon};
use self::json::{Unique, section, syntax};
use self::policy::{Cautious, CautiousMgup, Grams, Mgup, Plain, Policy};
use self::spec::TensorSpec;
use self::state::StateFormat;
use crate::error::{Error, Result};

/// A base optimizer times an update policy.
///
/// Build it in code, take a preset by name, or read JSON:
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::AdamW;
/// use wgpu_optim::policy::Mgup;
///
/// let a = Recipe::adamw(1e-3).weight_decay(0.1).mgup();
/// let b = Recipe::new(AdamW::new(1e-3).weight_decay(0.1), Mgup::default());
/// let c = Recipe::from_json(r#"{ "base": { "type": "adamw", "weight_decay": 0.1 }, "policy": { "type": "mgup" } }"#)?;
/// assert!(a == b && b == c);
/// assert_eq!(Recipe::adamw(1e-3).mgup(), "mgup-adamw".parse()?);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
///
/// [`validate`](Self::validate) checks the values. Constructors of optimizers call it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Unique")]
#[non_exhaustive]
pub struct Recipe {
    /// The direction of a step.
    pub base: Base,
    /// The factor of each coordinate.
    pub policy: Policy,
    /// How the states of the base are stored. `"state": "8bit"` in JSON.
    #[serde(skip_serializing_if = "StateFormat::is_f32")]
    pub state: StateFormat,
}

impl Recipe {
    /// A base under an update policy.
    pub fn new(base: impl Into<Base>, policy: impl Into<Policy>) -> Self {
        Self { base: base.into(), policy: policy.into(), state: StateFormat::F32 }
    }

    /// AdamW with the defaults of the MGUP paper, and [`Plain`] updates. [`AdamW::torch`] has PyTorch's defaults.
    pub fn adamw(lr: f64) -> Self {
        AdamW::new(lr).into()
    }

    /// [`Lion`] with plain updates.
    pub fn lion(lr: f64) -> Self {
        Lion::new(lr).into()
    }

    /// [`Muon`] with plain updates.
    pub fn muon(lr: f64) -> Self {
        Muon::new(lr).into()
    }

    /// [`AdaGo`] with plain updates.
    pub fn adago(lr: f64) -> Self {
        AdaGo::new(lr).into()
    }

    /// The same base with [`Mgup`] updates at τ = 0.5.
    #[must_use]
    pub fn mgup(self) -> Self {
        self.with_policy(Mgup::default())
    }

    /// The same base with [`CautiousMgup`] updates at τ = 0.5.
    #[must_use]
    pub fn cautious_mgup(self) -> Self {
        self.with_policy(CautiousMgup::default())
    }

    /// The same base with [`Cautious`] updates, normalized by the mean of the mask.
    #[must_use]
    pub fn cautious(self) -> Self {
        self.with_policy(Cautious::default())
    }

    /// The same base with [`Grams`] updates.
    #[must_use]
    pub fn grams(self) -> Self {
        self.with_policy(Grams::default())
    }

    /// The same base with another update policy.
    ///
    /// ```
    /// use wgpu_optim::Recipe;
    /// use wgpu_optim::policy::{Mgup, Selection};
    ///
    /// let few = Recipe::adago(1e-2).with_policy(Mgup::default().ratio(0.3).selection(Selection::Approximate));
    /// assert_eq!(few.name(), "mgup-adago-approximate");
    /// assert_eq!(few.policy.factors(), (1.0 / 0.3, 0.3));
    /// assert_eq!(Recipe::lion(1e-4).cautious_mgup().name(), "cautious-mgup-lion");
    /// assert_eq!(Recipe::lion(1e-4).grams().name(), "grams-lion");
    /// ```
    #[must_use]
    pub fn with_policy(self, policy: impl Into<Policy>) -> Self {
        Self { policy: policy.into(), ..self }
    }

    /// The same recipe with states stored in another format. A fallback follows.
    ///
    /// ```
    /// use wgpu_optim::{Recipe, StateFormat};
    ///
    /// let small = Recipe::adamw(1e-3).mgup().with_state(StateFormat::EightBit);
    /// let read = Recipe::from_json(r#"{ "base": { "type": "adamw" }, "policy": { "type": "mgup" }, "state": "8bit" }"#)?;
    /// assert_eq!(small, read);
    /// assert_eq!((small.state.name(), small.state.bytes()), ("8bit", 1));
    ///
    /// // Some bases need exact states.
    /// let exact = Recipe::from(wgpu_optim::base::ScheduleFreeSgd::new(0.1));
    /// assert!(exact.with_state(StateFormat::EightBit).validate().is_err());
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    #[must_use]
    pub fn with_state(self, state: StateFormat) -> Self {
        Self { state, ..self }
    }

    /// The same recipe with another weight decay λ, ≥ 0 and finite. The weight decay of a fallback stays as it is.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { base: self.base.with_weight_decay(weight_decay), ..self }
    }

    /// The learning rate.
    pub fn lr(&self) -> f64 {
        self.base.lr()
    }

    /// The recipe for tensors that are not matrices: the fallback of a matrix base or of Adafactor under the same policy. `None` for other
    /// bases.
    pub fn fallback(&self) -> Option<Self> {
        Some(Self { base: self.base.fallback()?, ..*self })
    }

    /// The recipe that steps a tensor: this one, or its fallback if the tensor is not a matrix.
    pub fn on(&self, spec: &TensorSpec) -> Self {
        self.fallback().filter(|_| spec.matrix().is_none()).unwrap_or(*self)
    }

    /// The same recipe with another learning rate η, ≥ 0 and finite. The rate of a fallback changes in proportion.
    #[must_use]
    pub fn with_lr(self, lr: f64) -> Self {
        Self { base: self.base.with_lr(lr), ..self }
    }

    /// Whether the CPU [`reference`](mod@crate::reference) can step with this recipe. False only if a custom base or policy lacks a twin.
    pub fn has_twin(&self) -> bool {
        self.needs_twin().is_ok()
    }

    /// The texts of the custom base and the custom policy, if any.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &'static custom::Definition> {
        let [base, policy] = [
            self.base.custom().map(|custom| custom.definition()),
            self.policy.custom().map(|custom| custom.definition()),
        ];
        base.into_iter().chain(policy)
    }

    /// Refuses a custom base or policy without a twin.
    pub(crate) fn needs_twin(&self) -> Result<()> {
        let (base, policy) = (self.base.custom(), self.policy.custom());
        let base = base.filter(|custom| !custom.has_twin()).map(|custom| ("base", custom.name()));
        let policy = policy.filter(|custom| !custom.has_twin()).map(|custom| ("policy", custom.name()));
        let Some((section, name)) = base.or(policy) else { return Ok(()) };
        let allowed = "one with a CPU twin, to step on the CPU: give it with `twin`".to_owned();
        Err(Error::Recipe { field: section.to_owned(), value: format!("`{name}`"), allowed })
    }

    /// The same recipe with a hyper-parameter of its custom base or policy multiplied by a factor. If both declare the name, the base's
    /// changes.
    pub(crate) fn scaled(mut self, name: &str, factor: f64) -> Result<Self> {
        match (self.base.custom(), self.policy.custom()) {
            (Some(base), policy) if policy.is_none() || base.value(name).is_some() => {
                self.base = base.scalar(name, base.value(name).unwrap_or_default() * factor)?.into();
            }
            (_, Some(policy)) => {
                self.policy = policy.scalar(name, policy.value(name).unwrap_or_default() * factor)?.into();
            }
            _ => {
                return Err(syntax(
                    "schedule",
                    format!("`{name}` is not a hyper-parameter of a custom base or policy"),
                ));
            }
        }
        Ok(self)
    }

    /// Checks that every hyper-parameter is in its range, and that base and policy work together.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field, its value and what is allowed. [`Error::Custom`] if a custom base or policy has the name of a
    /// built-in one.
    pub fn validate(&self) -> Result<()> {
        self.base.validate("base")?;
        self.base.validate_state("base", self.state)?;
        self.fallback().map_or(Ok(()), |own| own.base.validate_state("base.fallback", self.state))?;
        self.policy.validate(&self.base)
    }

    /// Reads a recipe from JSON: `{"base": {"type": …}, "policy": {"type": …}}`, or the name of a preset as a string.
    ///
    /// A byte order mark, which some editors put first, is skipped. Every key but `type` has a default. A missing `policy` means `plain`, and
    /// a missing `state` means `f32`. Unknown and repeated keys are refused.
    ///
    /// # Errors
    /// [`Error::RecipeSyntax`] or [`Error::Recipe`], naming the field; [`Error::UnknownPreset`]; [`Error::Custom`] if the WGSL of a
    /// custom base or policy is not valid.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::try_from(json::unique(text)?)
    }

    /// Reads a recipe from a JSON file, in the format of [`from_json`](Self::from_json).
    ///
    /// A custom base or policy may name a WGSL file in `file`, instead of holding the WGSL in `wgsl`. The path is relative to the folder of
    /// the JSON file.
    ///
    /// ```no_run
    /// use wgpu_optim::Recipe;
    ///
    /// // { "base": { "type": "custom", "file": "tiger.wgsl", "lr": 1e-3 }, "policy": { "type": "mgup" } }
    /// let recipe = Recipe::from_file("tiger.json")?;
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`from_json`](Self::from_json), and [`Error::RecipeSyntax`] if a file cannot be read.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_file(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let read = |path: &std::path::Path, field: &str| {
            std::fs::read_to_string(path).map_err(|e| syntax(field, format!("cannot read {}: {e}", path.display())))
        };
        let text = read(path, "file")?;
        let Unique(mut value) = json::unique(&text)?;
        for section in ["base", "policy"] {
            let Some(Value::Object(fields)) = value.get_mut(section) else { continue };
            // `try_from` refuses a section with both `file` and `wgsl`.
            let Some(Value::String(file)) = fields.get("file").filter(|_| !fields.contains_key("wgsl")) else {
                continue;
            };
            let own = path.parent().unwrap_or(std::path::Path::new("")).join(file);
            let text = read(&own, &format!("{section}.file"))?;
            fields.remove("file");
            fields.insert("wgsl".to_owned(), text.into());
        }
        Self::try_from(value)
    }

    /// The recipe as JSON that [`Recipe::from_json`] reads.
    ///
    /// ```
    /// use wgpu_optim::Recipe;
    ///
    /// let recipe = Recipe::lion(1e-4).weight_decay(0.5).cautious();
    /// assert_eq!(Recipe::from_json(&recipe.to_json())?, recipe);
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a recipe holds nothing that JSON cannot")
    }
}

impl<B: Direction + Into<Base>> From<B> for Recipe {
    fn from(base: B) -> Self {
        Self::new(base, Plain::default())
    }
}

impl From<Base> for Recipe {
    fn from(base: Base) -> Self {
        Self::new(base, Plain::default())
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
            #[serde(default)]
            state: StateFormat,
        }
        fn plain() -> Value {
            serde_json::json!({ "type": "plain" })
        }
        let Sections { base, policy, state } = section("recipe", value)?;
        let recipe = Self { base: Base::read(base)?, policy: Policy::read(policy)?, state };
        recipe.validate()?;
        Ok(recipe)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}
