//! The WGSL of a text: as a module of the kernels, and as a text of its own for a compiler to check.

use std::fmt::Write as _;

use super::check::{Definition, WITHIN_SQUARES, is_known};
use super::declarations::{Declarations, Member, Role, Value, Word};
use super::lexer::{Token, TokenKind};

/// A name of a text, out of the way of the kernels' own.
fn prefixed(role: Role, word: &str) -> String {
    format!("{}_{word}", role.word())
}

/// The definitions of a text, one after the other, as the linker reads them. Every name that is not WGSL's gets a prefix.
pub(super) fn definitions(role: Role, code: &[Token<'_>], all: &[Definition]) -> String {
    let mut text = String::new();
    for definition in all {
        let is_struct = code[definition.tokens.start].text == "struct";
        let mut depth = 0;
        for at in definition.tokens.clone() {
            let token = &code[at];
            let before = at.checked_sub(1).map_or("", |before| code[before].text);
            let is_member =
                before == "." || is_struct && depth == 1 && code.get(at + 1).is_some_and(|after| after.text == ":");
            let is_first = at == definition.tokens.start;
            // A definition begins on a new line, for the linker; spaces do not matter, so that texts that differ only there are the same.
            if depth > 0 && before == ";" && token.text != "}" {
                text += "\n    ";
            } else if !is_first && token.text != "." && before != "." && !text.ends_with([' ', '\n']) {
                text.push(' ');
            }
            depth -= usize::from(token.text == "}");
            if token.text == "}" && depth == 0 {
                text.push('\n');
            }
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
    text
}

/// The struct `Scalars` as the text sees it.
fn struct_of(name: &str, members: &[Member]) -> String {
    let mut text = format!("struct {name} {{\n");
    members.iter().for_each(|Member { name, ty, .. }| writeln!(text, "    {name}: {ty},").expect("a string takes all"));
    if members.is_empty() {
        text += "    unused: u32,\n";
    }
    text + "}\n\n"
}

/// Where a member of the text's `Scalars` lies in the kernels'.
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

/// The module `package::base`.
pub(super) fn base(declared: &Declarations, definitions: &str, has_direction: bool) -> String {
    let (scalars, given) = scalars(Role::Base, declared);
    let mut imports = "import package::state::{State, Update};\nimport package::tables::Scalars;\n".to_owned();
    if definitions.contains(WITHIN_SQUARES) {
        imports += "import package::lib::largest::within_squares;\n";
    }
    let initials = declared.states.iter().map(|state| format!("vec4<f32>({:?})", state.initial)).collect::<Vec<_>>();
    let old = match declared.states.iter().all(|state| state.initial == 0.0) {
        true => "    let begun = old;\n".to_owned(),
        // Buffers begin at zero.
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

/// The module `package::correction`: the bias corrections of the steps that were taken, where steps may be skipped.
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

/// The module `package::policy`.
pub(super) fn policy(declared: &Declarations, definitions: &str) -> String {
    let (scalars, given) = scalars(Role::Policy, declared);
    format!(
        "import package::tables::{{Chunk, Scalars}};\n\n{scalars}{definitions}\
         fn factors(chunk: Chunk, s: Scalars) -> vec2<f32> {{\n    return vec2<f32>(s.alpha, s.gamma);\n}}\n\n\
         fn phi(given: vec2<f32>, selected: vec4<bool>, score: vec4<f32>) -> vec4<f32> {{\n    \
         return policy_phi(score, {given});\n}}\n"
    )
}

/// The text with everything that it uses, for a compiler. It begins with the text, so that places are the text's own.
pub(super) fn alone(role: Role, text: &str, declared: &Declarations, has_direction: bool) -> String {
    let mut all = format!("{text}\n{}", struct_of("Scalars", &declared.members(role)));
    if role == Role::Policy {
        return all
            + "fn check_phi(score: vec4<f32>, scalars: Scalars) -> vec4<f32> {\n    return phi(score, scalars);\n}\n";
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
            fn check_update(old: State, g: vec4<f32>, scalars: Scalars) -> Update {\n    return update(old, g, scalars);\n}\n";
    if has_direction {
        all += "fn check_direction_of(state: State, g: vec4<f32>, scalars: Scalars) -> vec4<f32> {\n    \
                return direction_of(state, g, scalars);\n}\n";
    }
    all
}
