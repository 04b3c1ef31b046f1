//! Turns a text into modules of the kernels, and into a module that a compiler can check on its own.

use std::fmt::Write as _;

use super::check::{Definition, WITHIN_SQUARES, is_known};
use super::declarations::{Declarations, Member, Role, Value, Word};
use super::lexer::{Place, Token, TokenKind};

/// Adds a prefix to a name of a text, so that it cannot clash with names in the kernels.
fn prefixed(role: Role, word: &str) -> String {
    format!("{}_{word}", role.word())
}

/// The definitions of a text, in the form that the linker reads. Every name that is not part of WGSL has a prefix.
#[derive(Debug)]
pub(super) struct Code {
    pub text: String,
    /// For each token, its offset in `text` in bytes, and its place in the original.
    pub places: Vec<(usize, Place)>,
}

/// Writes the definitions of a text in the form that the linker reads.
pub(super) fn definitions(role: Role, code: &[Token<'_>], all: &[Definition]) -> Code {
    let (mut text, mut places) = (String::new(), Vec::new());
    for definition in all {
        let is_struct = code[definition.tokens.start].text == "struct";
        let mut depth = 0;
        for at in definition.tokens.clone() {
            let token = &code[at];
            let before = at.checked_sub(1).map_or("", |before| code[before].text);
            let is_member =
                before == "." || is_struct && depth == 1 && code.get(at + 1).is_some_and(|after| after.text == ":");
            let is_first = at == definition.tokens.start;
            // The linker needs each definition to begin on a new line. Other spaces are normalized, so that they do not change the result.
            let ends_member = is_struct && depth == 1 && before == ",";
            if depth > 0 && (before == ";" || ends_member) && token.text != "}" {
                text += "\n    ";
            } else if !is_first && token.text != "." && before != "." && !text.ends_with([' ', '\n']) {
                text.push(' ');
            }
            depth -= usize::from(token.text == "}");
            if token.text == "}" && depth == 0 {
                text.push('\n');
            }
            places.push((text.len(), token.at));
            let is_own = token.kind == TokenKind::Word && !is_member && !is_known(token.text);
            let is_given = role == Role::Base && token.text == WITHIN_SQUARES;
            if is_own && !is_given {
                text += &prefixed(role, token.text)
            } else {
                text += token.text
            }
            if token.text == "{" && depth == 0 {
                text += "\n    ";
            }
            depth += usize::from(token.text == "{");
        }
        text += "\n\n";
    }
    Code { text, places }
}

/// The struct `Scalars`, as the text sees it.
fn struct_of(name: &str, members: &[Member]) -> String {
    let mut text = format!("struct {name} {{\n");
    members.iter().for_each(|Member { name, ty, .. }| writeln!(text, "    {name}: {ty},").expect("a string takes all"));
    if members.is_empty() {
        text += "    unused: u32,\n";
    }
    text + "}\n\n"
}

/// The expression in the kernels that holds a member of the text's `Scalars`.
fn source(role: Role, member: &Member) -> String {
    match (member.word, role) {
        (Word::Lr, _) => "s.lr".to_owned(),
        (Word::Step, _) => "s.t".to_owned(),
        (Word::Scalar { word, .. }, Role::Base) => format!("s.ns[{}].{}", word / 4, ["x", "y", "z", "w"][word % 4]),
        (Word::Scalar { word, .. }, Role::Policy) => format!("given.{}", ["x", "y"][word]),
    }
}

fn scalars(role: Role, declared: &Declarations) -> (String, String) {
    let members = declared.members(role);
    let sources: Vec<_> = members.iter().map(|member| source(role, member)).collect();
    let arguments = if sources.is_empty() { "0u".to_owned() } else { sources.join(", ") };
    let name = prefixed(role, "Scalars");
    (struct_of(&name, &members), format!("{name}({arguments})"))
}

/// The module `package::base` of a custom base.
pub(super) fn base(declared: &Declarations, definitions: &str, has_direction: bool) -> String {
    let (scalars, given) = scalars(Role::Base, declared);
    let mut imports = "import package::state::{State, Update};\nimport package::tables::Scalars;\n".to_owned();
    if definitions.contains(WITHIN_SQUARES) {
        imports += "import package::lib::largest::within_squares;\n";
    }
    let initials = declared.states.iter().map(|state| format!("vec4<f32>({:?})", state.initial)).collect::<Vec<_>>();
    let old = match declared.states.iter().all(|state| state.initial == 0.0) {
        true => "    let begun = old;\n".to_owned(),
        // Buffers start at zero, so the first step sets the initial values.
        false => format!("    var begun = old;\n    if s.t == 1u {{ begun = State({}); }}\n", initials.join(", ")),
    };
    let direction = match (declared.signs, has_direction) {
        (true, _) => "sign(next.direction)",
        (false, true) => "base_direction_of(next.state, g, given)",
        (false, false) => "next.direction",
    };
    let mut text = format!(
        "{imports}\n{scalars}{definitions}\
         fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {{\n    let given = {given};\n{old}    \
         let next = base_update(begun, g, given);\n    return Update({direction}, next.state);\n}}\n"
    );
    if has_direction {
        text += &format!(
            "\nfn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {{\n    \
             return base_direction_of(state, g, {given});\n}}\n"
        );
    }
    text
}

/// The module `package::correction`. Where steps may be skipped, it computes the bias corrections from the number of steps that were taken.
pub(super) fn correction(declared: &Declarations) -> String {
    let members = declared.members(Role::Base);
    let of = |scalar: usize| {
        members.iter().find_map(|member| match member.word {
            Word::Scalar { index, value: Value::Correction, .. } if index == scalar => {
                Some((source(Role::Base, member), member.word))
            }
            _ => None,
        })
    };
    let mut moves = String::new();
    for (place, word) in (0..declared.scalars.len()).filter_map(of) {
        let Word::Scalar { word, .. } = word else { continue };
        let ln = format!("s.ns[{}].{}", (word + 1) / 4, ["x", "y", "z", "w"][(word + 1) % 4]);
        writeln!(moves, "    {place} = complement(t * {ln});").expect("a string takes all");
    }
    if let Some([first, second]) =
        declared.bias_corrected.map(|both| both.map(|scalar| of(scalar).expect("it decays").0))
    {
        moves += &format!("    let bias = sqrt({second}) / {first};\n    s.step *= bias;\n    s.decay *= bias;\n");
    }
    let (import, t) = match moves.is_empty() {
        true => ("", ""),
        false => ("import package::lib::complement::complement;\n", "    let t = f32(s.t);\n"),
    };
    format!(
        "{import}import package::tables::Scalars;\n\nfn corrected(uncorrected: Scalars) -> Scalars {{\n    \
         var s = uncorrected;\n{t}{moves}    return s;\n}}\n"
    )
}

/// The module `package::policy` of a custom policy.
pub(super) fn policy(declared: &Declarations, definitions: &str) -> String {
    let (scalars, given) = scalars(Role::Policy, declared);
    format!(
        "import package::tables::{{Chunk, Scalars}};\n\n{scalars}{definitions}\
         fn factors(chunk: Chunk, s: Scalars) -> vec2<f32> {{\n    return vec2<f32>(s.alpha, s.gamma);\n}}\n\n\
         fn phi(given: vec2<f32>, selected: vec4<bool>, score: vec4<f32>) -> vec4<f32> {{\n    \
         return policy_phi(score, {given});\n}}\n"
    )
}

/// WGSL for a compiler: the definitions of a text, everything that they use, and calls of its functions with the required types.
pub(super) fn alone(role: Role, code: &str, declared: &Declarations, has_direction: bool) -> String {
    let mut all = format!("{code}{}", struct_of(&prefixed(role, "Scalars"), &declared.members(role)));
    if role == Role::Policy {
        return all
            + "fn check_phi(score: vec4<f32>, scalars: policy_Scalars) -> vec4<f32> {\n    return policy_phi(score, scalars);\n}\n";
    }
    all += "struct State {\n";
    declared
        .states
        .iter()
        .for_each(|state| writeln!(all, "    {}: vec4<f32>,", state.name).expect("a string takes all"));
    if declared.states.is_empty() {
        all += "    unused: u32,\n";
    }
    all += "}\nstruct Update {\n    direction: vec4<f32>,\n    state: State,\n}\n\
            fn within_squares(g: vec4<f32>) -> vec4<f32> {\n    return g;\n}\n\
            fn check_update(old: State, g: vec4<f32>, scalars: base_Scalars) -> Update {\n    \
            return base_update(old, g, scalars);\n}\n";
    if has_direction {
        all += "fn check_direction_of(state: State, g: vec4<f32>, scalars: base_Scalars) -> vec4<f32> {\n    \
                return base_direction_of(state, g, scalars);\n}\n";
    }
    all
}
