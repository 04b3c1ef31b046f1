//! Custom bases, which a program supplies as WGSL.

use std::fmt;
use std::sync::Mutex;

use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value as Json;

use super::kind::{BaseRow, CustomRow, Direction, EPS, Recall, StateBinding, StateRow, StepScalars, bindings_of};
use crate::recipe::custom::{Custom, Definition, Known, Role, TwinScalars, Value, WORDS, Word, known, take};
use crate::recipe::json::section;
use crate::recipe::prelude::*;

type Twin = dyn Fn(&mut [f64], f64, TwinScalars<'_>) -> f64 + Send + Sync;

/// A custom base optimizer, which the program supplies as WGSL, with the hyper-parameters of one group.
///
/// Comments that begin with `//@` declare the name, states and hyper-parameters. The function `update` returns the direction and the new
/// state of four coordinates. `docs/custom.md` is the tutorial, and lists what the WGSL may use.
///
/// ```
/// use wgpu_optim::Recipe;
/// use wgpu_optim::base::CustomBase;
///
/// // Tiger (Su, 2023): m ← β m + (1−β) g ;  u = sign(m)
/// let tiger = CustomBase::new("
/// //@ base tiger
/// //@ lr 1e-3
/// //@ state exp_avg
/// //@ decay beta = 0.945
/// //@ signs
///
/// fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
///     let m = s.beta * old.exp_avg + s.one_minus_beta * g;
///     return Update(m, State(m)); // `signs` takes the sign of m
/// }
/// ")?;
/// let recipe = Recipe::from(tiger.lr(2e-3).weight_decay(0.1).scalar("beta", 0.95)?).mgup();
/// assert_eq!(recipe.name(), "mgup-tiger");
/// assert_eq!(Recipe::from_json(&recipe.to_json())?, recipe);
/// # Ok::<(), wgpu_optim::Error>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct CustomBase {
    /// Learning rate η, ≥ 0 and finite. Default: the value that the WGSL declares, or 1e-3.
    pub lr: f64,
    /// Weight decay λ, ≥ 0 and finite. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay leaves out parameters that the step moves away from 0. Default false.
    pub cautious_weight_decay: bool,
    custom: Custom<WORDS>,
    row: &'static BaseRow,
    twin: Option<&'static Twin>,
}

impl CustomBase {
    /// Checks the WGSL of a base, and returns the base with the default values that the WGSL declares.
    ///
    /// One copy of each checked WGSL stays in memory until the program ends. [`Recipe::validate`](crate::Recipe::validate) refuses the name
    /// of a built-in base. On the web, the browser's compiler checks types and members when an optimizer is built.
    ///
    /// # Errors
    /// Returns [`Error::Custom`] with the line and column of the first error.
    pub fn new(wgsl: &str) -> Result<Self> {
        static KNOWN: Known<BaseRow> = Mutex::new(Vec::new());
        let row = known(&KNOWN, wgsl, || Ok(row(Box::leak(Box::new(Definition::read(Role::Base, wgsl)?)))))?;
        let custom = Custom::new(row.custom.expect("it is custom").definition);
        let lr = custom.definition.declared.lr.unwrap_or(1e-3);
        Ok(Self { lr, weight_decay: 0.0, cautious_weight_decay: false, custom, row, twin: None })
    }

    /// Sets the learning rate.
    #[must_use]
    pub fn lr(self, lr: f64) -> Self {
        Self { lr, ..self }
    }

    /// Sets the weight decay λ. A step subtracts lr λ θ from the parameter θ.
    #[must_use]
    pub fn weight_decay(self, weight_decay: f64) -> Self {
        Self { weight_decay, ..self }
    }

    /// Sets whether weight decay leaves out parameters that the step moves away from 0.
    #[must_use]
    pub fn cautious_weight_decay(self, cautious_weight_decay: bool) -> Self {
        Self { cautious_weight_decay, ..self }
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
    /// `twin(state, g, scalars)` updates the states, in the order of their declarations, and returns the direction. With a twin,
    /// [`verify::Runner`](crate::verify::Runner) compares the GPU with the CPU, and [`reference`](mod@crate::reference) can step. JSON does
    /// not include the twin. Every twin stays in memory until the program ends.
    #[must_use]
    pub fn twin(self, twin: impl Fn(&mut [f64], f64, TwinScalars<'_>) -> f64 + Send + Sync + 'static) -> Self {
        Self { twin: Some(Box::leak(Box::new(twin))), ..self }
    }

    /// The name that the WGSL declares, for example `tiger`.
    pub fn name(&self) -> &'static str {
        self.custom.name()
    }

    /// The WGSL, as it was passed to [`new`](Self::new).
    pub fn wgsl(&self) -> &'static str {
        &self.custom.definition.text
    }

    /// The hyper-parameters that the WGSL declares with `decay` or `scalar`, with their values, in the order of the declarations.
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

    /// Reads the fields of a recipe's section.
    pub(crate) fn read(mut fields: Json) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Fields {
            lr: Option<f64>,
            #[serde(default)]
            weight_decay: f64,
            #[serde(default)]
            cautious_weight_decay: bool,
        }
        let (text, values) = take(Role::Base, &mut fields)?;
        let own = Self::new(&text)?;
        let own = Self { custom: own.custom.with_all(values)?, ..own };
        let Fields { lr, weight_decay, cautious_weight_decay } = section("base", fields)?;
        Ok(Self { lr: lr.unwrap_or(own.lr), weight_decay, cautious_weight_decay, ..own })
    }
}

/// Why its states must be f32.
const NEEDS_F32: &str = "its text does not say which states are sums of squares, which must not become 0";

/// The row of a custom base in the table of kinds.
fn row(definition: &'static Definition) -> BaseRow {
    let declared = &definition.declared;
    let states: Vec<_> = declared.states.iter().map(|state| StateRow::new(&state.name)).collect();
    let states: &[StateRow] = states.leak();
    // The prefix keeps the names of states apart from the names in the kernels.
    let bindings = [false, true].map(|has_more| {
        let all = bindings_of(states, has_more).into_iter().enumerate();
        let named = all.map(|(i, binding)| StateBinding { name: format!("state_{i}_{}", binding.name), ..binding });
        &*named.collect::<Vec<_>>().leak()
    });
    let recall = match (declared.signs, definition.has_direction()) {
        (true, _) => Recall::Sign,
        (_, true) => Recall::State,
        _ => Recall::Lost,
    };
    let custom = CustomRow { definition, bindings };
    BaseRow {
        name: &declared.name,
        states,
        recall,
        custom: Some(custom),
        needs_f32: Some(NEEDS_F32),
        ..BaseRow::ELEMENTWISE
    }
}

impl PartialEq for CustomBase {
    /// Compares the text and the hyper-parameters. Twins are ignored.
    fn eq(&self, other: &Self) -> bool {
        let of = |base: &Self| (base.lr, base.weight_decay, base.cautious_weight_decay, base.custom);
        of(self) == of(other)
    }
}

impl fmt::Debug for CustomBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lr, weight_decay, cautious_weight_decay, custom, row: _, twin: _ } = self;
        let mut debug = f.debug_struct("CustomBase");
        debug.field("lr", lr).field("weight_decay", weight_decay).field("cautious_weight_decay", cautious_weight_decay);
        debug.field("custom", custom).finish_non_exhaustive()
    }
}

impl Serialize for CustomBase {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_map(None)?;
        self.custom.write(&mut fields)?;
        fields.serialize_entry("lr", &self.lr)?;
        fields.serialize_entry("weight_decay", &self.weight_decay)?;
        if self.cautious_weight_decay {
            fields.serialize_entry("cautious_weight_decay", &true)?;
        }
        fields.end()
    }
}

impl CustomBase {
    /// The value of a member of the text's `Scalars` in step `t`, in f64.
    fn member(&self, word: Word, t: u64) -> f64 {
        match word {
            Word::Lr => self.lr,
            Word::Step => t as f64,
            Word::Scalar { index, value: Value::Own, .. } => self.custom.values[index],
            Word::Scalar { index, value: Value::OneMinus, .. } => 1.0 - self.custom.values[index],
            Word::Scalar { index, value: Value::Correction, .. } => 1.0 - self.custom.values[index].powf(t as f64),
        }
    }

    /// The names and values of the members of `Scalars` in step `t`, for the twin.
    fn seen(&self, t: u64) -> Vec<(String, f64)> {
        let members = self.custom.definition.declared.members(Role::Base).into_iter();
        members.map(|member| (member.name, self.member(member.word, t))).collect()
    }

    /// The direction of one coordinate, from the twin, which also updates the states. The first step starts from the initial values.
    fn direction(&self, states: &mut [f64], g: f64, t: u64, seen: &[(String, f64)]) -> f64 {
        if t == 1 {
            let initial = self.custom.definition.declared.states.iter().map(|state| f64::from(state.initial));
            states.iter_mut().zip(initial).for_each(|(state, initial)| *state = initial);
        }
        let twin = self.twin.expect("a recipe without a twin is refused before it steps on the CPU");
        let direction = twin(states, g, TwinScalars(seen));
        if self.custom.definition.declared.signs { crate::recipe::float::sign(direction) } else { direction }
    }
}

impl Direction for CustomBase {
    type Fallback = Self;

    fn row(&self) -> &'static BaseRow {
        self.row
    }

    fn scalars(&self, t: u64) -> StepScalars {
        let mut words = [0.0; WORDS];
        for member in self.custom.definition.declared.members(Role::Base) {
            if let Word::Scalar { word, value, index } = member.word {
                words[word] = self.member(member.word, t);
                if value == Value::Correction {
                    // The logarithm of 0 is not finite. A tiny β gives the same correction, 1.
                    words[word + 1] = self.custom.values[index].max(1e-300).ln();
                }
            }
        }
        let corrections = self
            .custom
            .definition
            .declared
            .bias_corrected
            .map(|both| both.map(|index| 1.0 - self.custom.values[index].powf(t as f64)));
        let step = corrections.map_or(self.lr, |[c1, c2]| self.lr * c2.sqrt() / c1);
        StepScalars { step, decay: self.weight_decay * step, words, t, ..StepScalars::default() }
    }

    fn validate(&self, _: &str) -> Result<()> {
        self.custom.validate()
    }

    fn advance<T: Float>(&self, scalars: &StepScalars, grad: &[T], states: &mut [Vec<T>]) -> Vec<T> {
        let (seen, mut own) = (self.seen(scalars.t), vec![0.0; states.len()]);
        let wide = |x: T| x.to_f64().expect("f64 holds f32 and f64");
        let direction = |(i, &g): (usize, &T)| {
            own.iter_mut().zip(&*states).for_each(|(own, state)| *own = wide(state[i]));
            let direction = self.direction(&mut own, wide(g), scalars.t, &seen);
            states.iter_mut().zip(&own).for_each(|(state, &own)| state[i] = real(own));
            real(direction)
        };
        grad.iter().enumerate().map(direction).collect()
    }

    /// Estimates how much rounding errors of the gradient and of each state change the direction.
    fn direction_error(&self, scalars: &StepScalars, states: &[f64], [g, _]: [f64; 2], u: f64) -> Option<f64> {
        let seen = self.seen(scalars.t);
        let of = |states: &[f64], g: f64| self.direction(&mut states.to_vec(), g, scalars.t, &seen);
        let (exact, mut error) = (of(states, g), 8.0 * EPS * u.abs());
        for at in 0..=states.len() {
            for way in [1.0 - 8.0 * EPS, 1.0 + 8.0 * EPS] {
                let mut moved = states.to_vec();
                moved.iter_mut().skip(at).take(1).for_each(|state| *state *= way);
                error += (of(&moved, if at == states.len() { g * way } else { g }) - exact).abs();
            }
        }
        let flips = self.custom.definition.declared.signs && error > 0.5;
        (!flips).then_some(error)
    }
}
