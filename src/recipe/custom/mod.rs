//! Custom bases and policies, which a program supplies as WGSL.
//!
//! This WGSL is called a text. It declares its name, states and hyper-parameters in comments that begin with `//@`, and defines `update` or
//! `phi`. It is checked before anything is built from it. First, rules of this crate ensure that it terminates and only computes values.
//! Then a compiler checks it. One copy of each checked text stays in memory until the program ends.

mod check;
mod compile;
mod declarations;
mod lexer;
mod module;

use std::fmt;
use std::sync::{Mutex, PoisonError};

#[cfg(test)]
pub(crate) use check::is_known;
pub(crate) use declarations::{Declarations, FACTORS, Role, Value, WORDS, Word};
use lexer::Place;
use serde::ser::SerializeMap;
use serde_json::{Map, Value as Json};

use super::json::{section, syntax};
use super::prelude::*;

/// A checked text, with the kernel modules that are made from it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Definition {
    pub(crate) role: Role,
    pub(crate) text: String,
    pub(crate) declared: Declarations,
    /// The place of the declaration of its name.
    named: Place,
    functions: check::Functions,
    code: module::Code,
    /// The module `package::base` or `package::policy`.
    pub(crate) module: String,
    /// The module `package::correction` of a base.
    pub(crate) correction: String,
}

impl Definition {
    /// Checks a text.
    ///
    /// # Errors
    /// Returns [`Error::Custom`] with the place of the first error.
    pub(crate) fn read(role: Role, text: &str) -> Result<Self> {
        let unnamed = |(at, message)| refusal(role, "", at, message);
        let long = format!("the text has {} bytes; at most {} are allowed", text.len(), check::LONGEST);
        ensure!(text.len() <= check::LONGEST, unnamed((Place::FIRST, long)));
        let tokens = lexer::tokens(text).map_err(unnamed)?;
        let declared = Declarations::read(role, &tokens.declared).map_err(unnamed)?;
        let name = declared.name.clone();
        let refused = |(at, message)| refusal(role, &name, at, message);
        let named = tokens.declared[0].0;
        let (functions, all) = check::check(role, &tokens.code).map_err(refused)?;
        let code = module::definitions(role, &tokens.code, &all);
        let (module, correction) = match role {
            Role::Base => {
                (module::base(&declared, &code.text, functions.direction.is_some()), module::correction(&declared))
            }
            Role::Policy => (module::policy(&declared, &code.text), String::new()),
        };
        let definition = Self { role, text: text.to_owned(), declared, named, functions, code, module, correction };
        #[cfg(not(target_arch = "wasm32"))]
        compile::compile(&definition.alone()).map_err(|complaint| definition.complaint(complaint))?;
        Ok(definition)
    }

    /// Refuses a text whose name is `custom` or one of `taken`.
    pub(crate) fn check_name(&self, mut taken: impl Iterator<Item = &'static str>) -> Result<()> {
        let (name, word) = (&self.declared.name, self.role.word());
        let is_taken = name == "custom" || taken.any(|known| known == name);
        let message = || format!("`{name}` is the name of a built-in {word}");
        if is_taken { Err(refusal(self.role, name, self.named, message())) } else { Ok(()) }
    }

    /// WGSL for a compiler: the definitions as in kernels, and everything that they use.
    pub(crate) fn alone(&self) -> String {
        module::alone(self.role, &self.code.text, &self.declared, self.has_direction())
    }

    /// Whether the text defines `direction_of`.
    pub(crate) fn has_direction(&self) -> bool {
        self.functions.direction.is_some()
    }

    /// A hash of the generated code and the declared states. Comments and spaces do not change it. Another release may generate other code,
    /// and so another hash.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn fingerprint(&self) -> String {
        let all = format!("{}{}{:?}", self.module, self.correction, self.declared.states);
        // FNV-1a.
        let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        format!("{:016x}", all.bytes().fold(0xcbf2_9ce4_8422_2325, fold))
    }

    /// Turns a compiler's message about [`alone`](Self::alone) into an error. `byte` is the offset that the message is about, if known.
    pub(crate) fn complaint(&self, (byte, message): (Option<usize>, String)) -> Error {
        // Removes the prefix from quoted names. naga and browsers use different quotes.
        let own = |quote: char| format!("{quote}{}_", self.role.word());
        let message = message.lines().next().unwrap_or_default().trim();
        let message = message.replace(&own('`'), "`").replace(&own('\''), "'").replace(&own('"'), "\"");
        let (name, main) = (&self.declared.name, if self.role == Role::Base { "update" } else { "phi" });
        let (at, message) = match byte.filter(|byte| *byte < self.code.text.len()) {
            Some(byte) => {
                let after = self.code.places.partition_point(|(begin, _)| *begin <= byte);
                (self.code.places.get(after.saturating_sub(1)).map_or(Place::FIRST, |(_, at)| *at), message)
            }
            // The code after the text calls its functions with the required types.
            None if message.contains("direction_of") => {
                (self.functions.direction.unwrap_or(self.functions.main), check::wrong_signature("direction_of"))
            }
            None if message.contains(main) => (self.functions.main, check::wrong_signature(main)),
            None => (self.named, message),
        };
        refusal(self.role, name, at, message)
    }
}

impl PartialEq for Definition {
    /// Whether both generate the same kernel code.
    fn eq(&self, other: &Self) -> bool {
        (&self.module, &self.correction) == (&other.module, &other.correction)
    }
}

impl Eq for Definition {}

fn refusal(role: Role, name: &str, Place { line, column }: Place, message: String) -> Error {
    let name = if name.is_empty() { String::new() } else { format!(" `{name}`") };
    Error::Custom { text: format!("custom {}{name}", role.word()), line, column, message }
}

/// The values that were made from texts, by text. Each value is made once and stays in memory until the program ends.
pub(crate) type Known<V> = Mutex<Vec<(String, &'static V)>>;

/// Returns the value of a text, and makes it if there is none yet.
pub(crate) fn known<V>(known: &Known<V>, text: &str, make: impl FnOnce() -> Result<V>) -> Result<&'static V> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, value)) = known.iter().find(|(known, _)| known == text) {
        return Ok(value);
    }
    let value: &V = Box::leak(Box::new(make()?));
    known.push((text.to_owned(), value));
    Ok(value)
}

/// Removes the text and the values of its hyper-parameters from the fields of a recipe's section, and returns them.
pub(crate) fn take(role: Role, fields: &mut Json) -> Result<(String, Map<String, Json>)> {
    let fields = fields.as_object_mut().expect("its type was read");
    let path = |field: &str| format!("{}.{field}", role.word());
    let text = match (fields.remove("wgsl"), fields.remove("file")) {
        (Some(text), None) => section(&path("wgsl"), text)?,
        (None, Some(file)) => {
            let message = format!(
                "{file} is relative to a recipe file: read the recipe with `Recipe::from_file`, or give the text as `wgsl`"
            );
            return Err(syntax(path("file"), message));
        }
        _ => {
            let message = "needs either the text as `wgsl`, or the name of its file as `file`";
            return Err(syntax(role.word(), message));
        }
    };
    Ok((text, fields.remove("scalars").map_or(Ok(Map::new()), |scalars| section(&path("scalars"), scalars))?))
}

/// A checked text with values of its hyper-parameters.
#[derive(Clone, Copy)]
pub(crate) struct Custom<const N: usize> {
    pub definition: &'static Definition,
    /// The values, in the order of the declarations. The rest is 0.
    pub values: [f64; N],
}

impl<const N: usize> Custom<N> {
    /// The text with the default values that it declares.
    pub(crate) fn new(definition: &'static Definition) -> Self {
        let scalars = &definition.declared.scalars;
        Self { definition, values: std::array::from_fn(|at| scalars.get(at).map_or(0.0, |scalar| scalar.default)) }
    }

    /// The same text with the values of a recipe's section.
    pub(crate) fn with_all(self, values: Map<String, Json>) -> Result<Self> {
        let field = |name: &str| format!("{}.scalars.{name}", self.definition.role.word());
        values.into_iter().try_fold(self, |own, (name, value)| own.with(&name, section(&field(&name), value)?))
    }

    pub(crate) fn name(&self) -> &'static str {
        &self.definition.declared.name
    }

    pub(crate) fn scalars(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.definition.declared.scalars.iter().map(|scalar| scalar.name.as_str()).zip(self.values)
    }

    /// The same text with another value of one hyper-parameter.
    pub(crate) fn with(mut self, name: &str, value: f64) -> Result<Self> {
        let at = self.scalars().position(|(known, _)| known == name).ok_or_else(|| {
            let known: Vec<_> = self.scalars().map(|(name, _)| format!("`{name}`")).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            syntax(
                format!("{}.scalars.{name}", self.definition.role.word()),
                format!("`{}` declares {known}", self.name()),
            )
        })?;
        self.values[at] = value;
        Ok(self)
    }

    /// Refuses hyper-parameters that are out of range.
    pub(crate) fn validate(&self) -> Result<()> {
        self.definition.declared.scalars.iter().zip(self.values).try_for_each(|(scalar, value)| {
            let field = format!("{}.scalars.{}", self.definition.role.word(), scalar.name);
            let refusal = Error::Recipe { field, value: number(value), allowed: scalar.range.to_string() };
            if scalar.range.holds(value) { Ok(()) } else { Err(refusal) }
        })
    }

    /// Writes the text and its hyper-parameters as fields of a recipe's section.
    pub(crate) fn write<S: SerializeMap>(&self, fields: &mut S) -> Result<(), S::Error> {
        fields.serialize_entry("wgsl", &self.definition.text)?;
        let mut scalars = Map::new();
        self.scalars().for_each(|(name, value)| _ = scalars.insert(name.to_owned(), value.into()));
        fields.serialize_entry("scalars", &scalars)
    }
}

impl<const N: usize> PartialEq for Custom<N> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.definition, other.definition) && self.values == other.values
    }
}

impl<const N: usize> fmt::Debug for Custom<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct(self.name());
        self.scalars().for_each(|(name, value)| _ = debug.field(name, &value));
        debug.finish()
    }
}

/// The members of `Scalars` in one step, by name, in f64. A CPU twin reads them.
///
/// ```
/// use wgpu_optim::base::CustomBase;
///
/// let text = "
/// //@ base heavy_ball
/// //@ state momentum
/// //@ decay mu = 0.9
/// fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
///     let momentum = s.mu * old.momentum + s.one_minus_mu * g;
///     return Update(momentum / s.mu_correction, State(momentum));
/// }";
/// let base = CustomBase::new(text)?.twin(|state, g, s| {
///     state[0] = s["mu"] * state[0] + s["one_minus_mu"] * g;
///     state[0] / s["mu_correction"]
/// });
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct TwinScalars<'a>(pub(crate) &'a [(String, f64)]);

impl std::ops::Index<&str> for TwinScalars<'_> {
    type Output = f64;

    /// Returns the value of a member of `Scalars`: a hyper-parameter such as `beta1`, its `one_minus_beta1` or `beta1_correction`, or, in a
    /// base, `lr` or `t`.
    ///
    /// # Panics
    /// Panics if `Scalars` has no member of this name.
    fn index(&self, name: &str) -> &f64 {
        let found = self.0.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("`Scalars` has no member `{name}`")).1
    }
}
