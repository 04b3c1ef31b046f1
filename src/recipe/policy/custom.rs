//! Custom policies, which a program supplies as WGSL.

use std::fmt;
use std::sync::Mutex;

use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value as Json;

use super::kind::{Factor, PolicyRow, Selects};
use crate::recipe::custom::{Custom, Definition, FACTORS, Known, Role, TwinScalars, known, take};
use crate::recipe::json::section;
use crate::recipe::prelude::*;

type Twin = dyn Fn(f64, TwinScalars<'_>) -> f64 + Send + Sync;

/// A custom update policy, which the program supplies as WGSL. It computes the factor of each coordinate from the score of that coordinate.
///
/// Comments that begin with `//@` declare the name and at most two hyper-parameters. The function `phi` returns the factors of four scores.
/// The policy works with every base that does not orthogonalize matrices. `docs/custom.md` lists what the WGSL may use.
///
/// ```
/// use wgpu_optim::policy::CustomPolicy;
/// use wgpu_optim::{Recipe, reference};
///
/// let soft = CustomPolicy::new("
/// //@ policy soft_cautious
/// //@ scalar least = 0.1 in [0, 1]
/// fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> {
///     return select(vec4<f32>(s.least), vec4<f32>(1.0), score > vec4<f32>(0.0));
/// }
/// ")?;
/// let soft = soft.scalar("least", 0.2)?.twin(|score, s| if score > 0.0 { 1.0 } else { s["least"] });
/// let recipe = Recipe::lion(1e-3).with_policy(soft);
/// assert_eq!(recipe.name(), "soft-cautious-lion");
/// assert_eq!(reference::phi(&recipe.policy, &[0.5, -0.5], 1).0, [1.0, 0.2]);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CustomPolicy {
    custom: Custom<FACTORS>,
    row: &'static PolicyRow,
    twin: Option<&'static Twin>,
}

impl CustomPolicy {
    /// Checks the WGSL of a policy, and returns the policy with the default values that the WGSL declares.
    ///
    /// One copy of each checked WGSL stays in memory until the program ends. [`Recipe::validate`](crate::Recipe::validate) refuses the name
    /// of a built-in policy. On the web, the browser's compiler checks types and members when an optimizer is built.
    ///
    /// # Errors
    /// Returns [`Error::Custom`] with the line and column of the first error.
    pub fn new(wgsl: &str) -> Result<Self> {
        static KNOWN: Known<(&'static Definition, PolicyRow)> = Mutex::new(Vec::new());
        let (definition, row) = known(&KNOWN, wgsl, || {
            let definition = Box::leak(Box::new(Definition::read(Role::Policy, wgsl)?));
            let row = PolicyRow {
                no_matrices: Some("its factor follows from a score that is gone after orthogonalization"),
                text: Some(&definition.module),
                ..PolicyRow::new(&definition.declared.name, "custom", Selects::Nothing)
            };
            Ok((&*definition, row))
        })?;
        Ok(Self { custom: Custom::new(definition), row, twin: None })
    }

    /// Sets a hyper-parameter that the WGSL declares. [`Recipe::validate`](crate::Recipe::validate) checks its range.
    ///
    /// # Errors
    /// Returns [`Error::RecipeSyntax`] if the WGSL does not declare a hyper-parameter of this name.
    pub fn scalar(self, name: &str, value: f64) -> Result<Self> {
        Ok(Self { custom: self.custom.with(name, value)?, ..self })
    }

    /// Sets the CPU twin: the same computation on the CPU, in f64, for one coordinate.
    ///
    /// `twin(score, scalars)` returns the factor φ. With a twin, [`verify::Runner`](crate::verify::Runner) compares the GPU with the CPU,
    /// and [`reference`](mod@crate::reference) can step. JSON does not include the twin. Every twin stays in memory until the program ends.
    #[must_use]
    pub fn twin(self, twin: impl Fn(f64, TwinScalars<'_>) -> f64 + Send + Sync + 'static) -> Self {
        Self { twin: Some(Box::leak(Box::new(twin))), ..self }
    }

    /// The name that the WGSL declares, for example `soft_cautious`.
    pub fn name(&self) -> &'static str {
        self.custom.name()
    }

    /// The WGSL, as it was passed to [`new`](Self::new).
    pub fn wgsl(&self) -> &'static str {
        &self.custom.definition.text
    }

    /// The hyper-parameters that the WGSL declares, with their values, in the order of the declarations.
    pub fn hyper_parameters(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.custom.scalars()
    }

    /// The value of a hyper-parameter, or `None` if the text does not declare it.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.custom.scalars().find_map(|(known, value)| (known == name).then_some(value))
    }

    pub(crate) fn definition(&self) -> &'static Definition {
        self.custom.definition
    }

    pub(crate) fn has_twin(&self) -> bool {
        self.twin.is_some()
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.custom.validate()
    }

    /// Reads the fields of a recipe's section.
    pub(crate) fn read(mut fields: Json) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {}
        let (text, values) = take(Role::Policy, &mut fields)?;
        let own = Self::new(&text)?;
        let Fields {} = section("policy", fields)?;
        Ok(Self { custom: own.custom.with_all(values)?, ..own })
    }
}

impl PartialEq for CustomPolicy {
    /// Compares the text and the hyper-parameters. Twins are ignored.
    fn eq(&self, other: &Self) -> bool {
        self.custom == other.custom
    }
}

impl fmt::Debug for CustomPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomPolicy").field(&self.custom).finish()
    }
}

impl Serialize for CustomPolicy {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_map(None)?;
        self.custom.write(&mut fields)?;
        fields.end()
    }
}

impl Factor for CustomPolicy {
    fn row(&self, _: u64) -> &'static PolicyRow {
        self.row
    }

    fn factors(&self) -> (f64, f64) {
        (self.custom.values[0], self.custom.values[1])
    }

    fn phi<T: Float>(&self, score: &[T], _: u64) -> (Vec<T>, usize) {
        let twin = self.twin.expect("a recipe without a twin is refused before it steps on the CPU");
        let seen: Vec<_> = self.custom.scalars().map(|(name, value)| (name.to_owned(), value)).collect();
        let phi = |&score: &T| real(twin(score.to_f64().expect("f64 holds f32 and f64"), TwinScalars(&seen)));
        (score.iter().map(phi).collect(), 0)
    }
}
