//! Reads the declarations of a text, the comments that begin with `//@`: its name, states, hyper-parameters and flags.

use super::lexer::{Place, Refused};
use crate::recipe::ranges::number;

/// The role of a text: a base or a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Base,
    Policy,
}

impl Role {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Policy => "policy",
        }
    }
}

/// Everything that a text declares.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Declarations {
    pub name: String,
    /// The default learning rate of a base.
    pub lr: Option<f64>,
    pub states: Vec<StateDeclaration>,
    pub scalars: Vec<ScalarDeclaration>,
    /// Indices of the decay rates A and B: the step is multiplied by √(1 − Bᵗ) / (1 − Aᵗ).
    pub bias_corrected: Option<[usize; 2]>,
    /// Whether the direction is the sign of what `update` returns.
    pub signs: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StateDeclaration {
    pub name: String,
    pub initial: f32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ScalarDeclaration {
    pub name: String,
    pub default: f64,
    pub range: Interval,
    /// Whether it is a decay rate, which has a bias correction.
    pub decays: bool,
}

/// An interval of numbers. Each end is open or closed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Interval {
    ends: [f64; 2],
    closed: [bool; 2],
}

impl Interval {
    const ALL: Self = Self { ends: [f64::NEG_INFINITY, f64::INFINITY], closed: [false; 2] };
    const UNIT: Self = Self { ends: [0.0, 1.0], closed: [true, false] };

    /// Whether the interval contains this number, and the number is finite in f32.
    pub(crate) fn holds(&self, value: f64) -> bool {
        let after = if self.closed[0] { value >= self.ends[0] } else { value > self.ends[0] };
        let before = if self.closed[1] { value <= self.ends[1] } else { value < self.ends[1] };
        after && before && value.abs() <= f32::MAX.into()
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::ALL {
            return f.write_str("finite in f32");
        }
        let ([low, high], [from, to]) = (self.ends.map(number), self.closed);
        write!(f, "in {}{low}, {high}{}", if from { '[' } else { '(' }, if to { ']' } else { ')' })
    }
}

/// Names that checkpoints and reads use for something other than a state.
const NO_STATES: [&str; 7] = ["param", "params", "grad", "master", "grad_sum", "rates", "step"];
/// The largest number of states per coordinate of a base.
const STATES: usize = 4;
/// Number of 4-byte words for the hyper-parameters of a base. A decay rate takes four, any other scalar takes one.
pub(crate) const WORDS: usize = 24;
/// The largest number of hyper-parameters of a policy.
pub(crate) const FACTORS: usize = 2;

/// The declarations of each role, for messages.
const KNOWN: [(Role, &str); 2] = [
    (
        Role::Base,
        "`base NAME`, `lr VALUE`, `state NAME [= VALUE]`, `decay NAME = VALUE`, `scalar NAME = VALUE [in [LOW, HIGH]]`, \
                  `bias_corrected DECAY DECAY` and `signs`",
    ),
    (Role::Policy, "`policy NAME` and `scalar NAME = VALUE [in [LOW, HIGH]]`"),
];

impl Declarations {
    /// Reads the declarations of a text.
    pub(super) fn read(role: Role, lines: &[(Place, &str)]) -> Result<Self, Refused> {
        let known = KNOWN.iter().find(|(of, _)| *of == role).expect("both are there").1;
        let unnamed = || format!("the text lacks its name: begin it with a line `//@ {} NAME`", role.word());
        let mut all = Self::default();
        let mut later = None;
        for &(at, line) in lines {
            let refused = |message: String| Err((at, message));
            let (keyword, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            if all.name.is_empty() && !["base", "policy"].contains(&keyword) {
                return refused(unnamed());
            }
            match (role, keyword) {
                (Role::Base, "policy") | (Role::Policy, "base") => {
                    return refused(format!("this text is a {keyword}, but a {} is needed", role.word()));
                }
                (_, "base" | "policy") if all.name.is_empty() => all.name = name(at, rest)?,
                (_, "base" | "policy") => return refused(format!("the text is already named `{}`", all.name)),
                (Role::Base, "lr") => {
                    all.lr = Some(value(at, rest, &Interval { closed: [true, false], ends: [0.0, f64::INFINITY] })?)
                }
                (Role::Base, "state") => {
                    let (own, initial) = rest.split_once('=').unwrap_or((rest, "0"));
                    let initial = value(at, initial.trim(), &Interval::ALL)? as f32;
                    all.states.push(StateDeclaration { name: name(at, own.trim())?, initial });
                }
                (Role::Base, "decay") | (_, "scalar") => all.scalars.push(scalar(at, rest, keyword == "decay")?),
                (Role::Base, "bias_corrected") => later = Some((at, rest)),
                (Role::Base, "signs") if rest.is_empty() => all.signs = true,
                _ => return refused(format!("`{}` is not a declaration; allowed are {known}", shortened(line))),
            }
            all.check_room(role).map_err(|message| (at, message))?;
        }
        if all.name.is_empty() {
            return Err((Place::FIRST, unnamed()));
        }
        if let Some((at, rest)) = later {
            let of = |name: &str| all.scalars.iter().position(|scalar| scalar.decays && scalar.name == name);
            let names: Vec<_> = rest.split_whitespace().map(of).collect();
            let [Some(first), Some(second)] = names[..] else {
                return Err((
                    at,
                    "`bias_corrected` needs two names declared with `decay`: of the first and of the second moment"
                        .to_owned(),
                ));
            };
            all.bias_corrected = Some([first, second]);
        }
        Ok(all)
    }

    /// Refuses more declarations than the kernels have room for, and names that are used twice.
    fn check_room(&self, role: Role) -> Result<(), String> {
        if self.states.len() > STATES {
            return Err(format!("a base has at most {STATES} states"));
        }
        let words: usize = self.scalars.iter().map(ScalarDeclaration::words).sum();
        match role {
            Role::Base if words > WORDS => {
                return Err(format!(
                    "there is room for {WORDS} words of hyper-parameters; each `decay` takes 4, each `scalar` 1"
                ));
            }
            Role::Policy if words > FACTORS => return Err(format!("a policy has at most {FACTORS} scalars")),
            _ => {}
        }
        let states = self.states.iter().map(|state| &state.name);
        if let Some(state) = states.clone().find(|state| NO_STATES.contains(&state.as_str())) {
            return Err(format!("a state may not be called `{state}`: checkpoints use this name for something else"));
        }
        twice(states)?;
        let members: Vec<_> = self.members(role).into_iter().map(|member| member.name).collect();
        twice(members.iter())
    }

    /// The members of `Scalars`, as the text sees them.
    pub(crate) fn members(&self, role: Role) -> Vec<Member> {
        let given = [("lr", "f32", Word::Lr), ("t", "u32", Word::Step)].map(|(name, ty, word)| Member {
            name: name.to_owned(),
            ty,
            word,
        });
        let mut members = if role == Role::Base { given.to_vec() } else { Vec::new() };
        let mut word = 0;
        for (index, ScalarDeclaration { name, decays, .. }) in self.scalars.iter().enumerate() {
            let mut add = |name: String, value| {
                members.push(Member { name, ty: "f32", word: Word::Scalar { word, index, value } });
                word += 1;
            };
            add(name.clone(), Value::Own);
            if *decays {
                add(format!("one_minus_{name}"), Value::OneMinus);
                add(format!("{name}_correction"), Value::Correction);
                // The last word holds ln β, from which the GPU computes the correction where steps may be skipped.
                word += 1;
            }
        }
        members
    }
}

impl ScalarDeclaration {
    fn words(&self) -> usize {
        if self.decays { 4 } else { 1 }
    }
}

/// A member of the struct `Scalars`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub name: String,
    pub ty: &'static str,
    pub word: Word,
}

/// The source of the value of a member of `Scalars`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Word {
    Lr,
    Step,
    /// The index of the word among the words of all scalars, the index of the scalar, and the value that the word holds.
    Scalar {
        word: usize,
        index: usize,
        value: Value,
    },
}

/// The value of a scalar that a member holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    Own,
    /// The value is 1 − β.
    OneMinus,
    /// The value is 1 − βᵗ.
    Correction,
}

fn twice<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut known = Vec::new();
    for name in names {
        if known.contains(&name) {
            return Err(format!("the name `{name}` is used twice"));
        }
        known.push(name);
    }
    Ok(())
}

/// Reads `NAME = VALUE [in [LOW, HIGH]]`.
fn scalar(at: Place, text: &str, decays: bool) -> Result<ScalarDeclaration, Refused> {
    let keyword = if decays { "decay" } else { "scalar" };
    let Some((own, rest)) = text.split_once('=') else {
        return Err((at, format!("`{keyword}` needs a default: `{keyword} NAME = VALUE`")));
    };
    let (own, rest) = (name(at, own.trim())?, rest.trim());
    let (default, range) = match rest.split_once(" in ") {
        Some(_) if decays => return Err((at, "a decay rate lies in [0, 1); omit the range".to_owned())),
        Some((default, range)) => (default.trim(), interval(at, range.trim())?),
        None => (rest, if decays { Interval::UNIT } else { Interval::ALL }),
    };
    Ok(ScalarDeclaration { name: own, default: value(at, default, &range)?, range, decays })
}

/// Reads a name. The name must be valid in WGSL, in files and in JSON.
fn name(at: Place, text: &str) -> Result<String, Refused> {
    let is_name = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    #[cfg(not(target_arch = "wasm32"))]
    if naga::keywords::wgsl::RESERVED.contains(&text) {
        return Err((at, format!("`{text}` is a reserved word of WGSL")));
    }
    let refusal = || format!("`{}` is not a name: up to 32 of a to z, 0 to 9 and _, a letter first", shortened(text));
    if is_name { Ok(text.to_owned()) } else { Err((at, refusal())) }
}

fn value(at: Place, text: &str, range: &Interval) -> Result<f64, Refused> {
    match text.parse::<f64>() {
        Ok(value) if range.holds(value) => Ok(value),
        Ok(value) => Err((at, format!("{} must be {range}", number(value)))),
        Err(_) => Err((at, format!("`{}` is not a number", shortened(text)))),
    }
}

/// Reads an interval such as `[0, 1)`. An end may be `inf` or `-inf`.
fn interval(at: Place, text: &str) -> Result<Interval, Refused> {
    let read = || {
        let inside = text.strip_prefix(['[', '('])?.strip_suffix([']', ')'])?;
        let (low, high) = inside.split_once(',')?;
        let ends = [low.trim().parse().ok()?, high.trim().parse().ok()?];
        (ends[0] < ends[1]).then_some(Interval { ends, closed: [text.starts_with('['), text.ends_with(']')] })
    };
    read().ok_or_else(|| (at, format!("`{}` is not a range: write it like `[0, 1)` or `(0, inf)`", shortened(text))))
}

/// The first 32 characters of a string, for messages.
pub(super) fn shortened(text: &str) -> String {
    let start: String = text.chars().take(32).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if start.len() < text.len() { start + "…" } else { start }
}
