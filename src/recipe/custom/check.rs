//! The rules for texts beyond those of WGSL: a text only computes values, and its work is bounded. The rules apply to tokens, so that a web
//! page can check a text without a compiler.

use std::ops::Range;

use super::declarations::{Role, shortened};
use super::lexer::{Place, Refused, Token, TokenKind};

/// Keywords of WGSL that a text may use.
const KEYWORDS: [&str; 18] = [
    "alias",
    "break",
    "case",
    "const",
    "const_assert",
    "continue",
    "default",
    "else",
    "false",
    "fn",
    "for",
    "if",
    "let",
    "return",
    "struct",
    "switch",
    "true",
    "var",
];

/// Types that a text may use.
const TYPES: &[&str] = &[
    "bool", "f32", "i32", "u32", "vec2", "vec3", "vec4", "vec2f", "vec3f", "vec4f", "vec2i", "vec3i", "vec4i", "vec2u",
    "vec3u", "vec4u",
];

/// Functions of WGSL that a text may use: those that apply to each component separately, and `all` and `any`.
const FUNCTIONS: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "all",
    "any",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitcast",
    "ceil",
    "clamp",
    "cos",
    "cosh",
    "countLeadingZeros",
    "countOneBits",
    "countTrailingZeros",
    "degrees",
    "exp",
    "exp2",
    "extractBits",
    "firstLeadingBit",
    "firstTrailingBit",
    "floor",
    "fma",
    "fract",
    "insertBits",
    "inverseSqrt",
    "ldexp",
    "log",
    "log2",
    "max",
    "min",
    "mix",
    "pow",
    "quantizeToF16",
    "radians",
    "reverseBits",
    "round",
    "saturate",
    "select",
    "sign",
    "sin",
    "sinh",
    "smoothstep",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
];

/// Types that are predefined in every text.
const GIVEN: [&str; 3] = ["State", "Update", "Scalars"];
/// A function of this crate that the text of a base may call.
pub(super) const WITHIN_SQUARES: &str = "within_squares";

/// Words that are refused everywhere, with the reason.
const REFUSED: &[(&str, &str)] = &[
    ("discard", "`discard` is only for fragment shaders"),
    ("loop", LOOPS),
    ("while", LOOPS),
    ("array", "arrays are not available: a text computes with scalars and vectors"),
    ("ptr", POINTERS),
    ("atomic", "atomics are not available"),
    ("override", "hyper-parameters are declared in a comment: `//@ scalar NAME = VALUE`"),
    ("enable", DIRECTIVES),
    ("requires", DIRECTIVES),
    ("diagnostic", DIRECTIVES),
    ("import", "imports are not available: a text must be self-contained"),
];
const LOOPS: &str = "a loop must end: write it as `for (var i = 0; i < 8; i++)`, with numbers as its bounds";
const POINTERS: &str = "pointers are not available";
const DIRECTIVES: &str = "directives are not available";

/// The largest size of a text, in bytes.
pub(super) const LONGEST: usize = 16 << 10;
/// The largest number of tokens in a statement. This limit and the next two exist because compilers recurse.
const LONGEST_STATEMENT: usize = 256;
/// The largest depth of nested brackets, and of nested calls.
const DEEPEST: usize = 32;
/// The largest number of `else` in a function.
const MOST_ELSE: usize = 32;
/// The largest number of rounds of a loop.
const MOST_ROUNDS: u64 = 64;
/// The largest number in the header of a loop.
const LARGEST_END: u64 = 1 << 16;
/// The largest number of tokens that a call of a function runs through, with loops unrolled and calls inlined, as compilers do.
const MOST_WORK: u64 = 1 << 12;

/// The places of the functions that kernels call.
#[derive(Debug)]
pub(super) struct Functions {
    /// The place of `update` or `phi`.
    pub main: Place,
    /// The place of `direction_of`, if the text defines it.
    pub direction: Option<Place>,
}

/// The functions that kernels call: role, name, names and types of the parameters, type of the result. Only `direction_of` is optional.
type Signature = (Role, &'static str, &'static [(&'static str, &'static str)], &'static str);
const MAIN: [Signature; 3] = [
    (Role::Base, "update", &[("old", "State"), ("g", "vec4<f32>"), ("scalars", "Scalars")], "Update"),
    (Role::Base, "direction_of", &[("state", "State"), ("g", "vec4<f32>"), ("scalars", "Scalars")], "vec4<f32>"),
    (Role::Policy, "phi", &[("score", "vec4<f32>"), ("scalars", "Scalars")], "vec4<f32>"),
];

/// The signature of the function of this name, for messages.
fn signature(name: &str) -> String {
    let (.., parameters, result) = MAIN.iter().find(|(_, known, ..)| *known == name).expect("it is one of these");
    let parameters: Vec<_> = parameters.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    format!("fn {name}({}) -> {result}", parameters.join(", "))
}

/// The message for a function whose parameters or result have the wrong types.
pub(super) fn wrong_signature(name: &str) -> String {
    format!("`{name}` must be `{}`", signature(name))
}

/// Whether a word belongs to WGSL, or is `State` or `Update`. Other names belong to the text.
pub(crate) fn is_known(word: &str) -> bool {
    KEYWORDS.contains(&word) || TYPES.contains(&word) || FUNCTIONS.contains(&word) || GIVEN[..2].contains(&word)
}

/// A definition at the top level of a text. `name` is the index of the token of its name, `tokens` the range of all its tokens.
pub(super) struct Definition {
    pub name: usize,
    pub tokens: Range<usize>,
    /// The tokens of its body, without the braces.
    pub body: Option<Range<usize>>,
}

/// Checks the code of a text, and returns the functions that kernels call and all definitions.
pub(super) fn check(role: Role, code: &[Token<'_>]) -> Result<(Functions, Vec<Definition>), Refused> {
    brackets(code)?;
    let all = definitions(code)?;
    let own: Vec<&str> = all.iter().map(|definition| code[definition.name].text).collect();
    for definition in &all {
        let (name, at) = (code[definition.name].text, code[definition.name].at);
        if GIVEN.contains(&name) || name == WITHIN_SQUARES {
            return Err((at, format!("`{name}` is predefined in every text; choose another name")));
        }
        if is_known(name) {
            return Err((at, format!("`{name}` is a name of WGSL; choose another")));
        }
    }
    words(role, code)?;
    members(code, &all, &own)?;
    let mut loops = Vec::new();
    for (at, token) in code.iter().enumerate().filter(|(_, token)| token.text == "for") {
        loops.push(bounded(code, at).ok_or((token.at, LOOPS.to_owned()))??);
    }
    let functions = signatures(role, code, &all)?;
    let mut known = vec![None; all.len()];
    (0..all.len()).try_for_each(|at| work(code, &all, &loops, at, &mut Vec::new(), &mut known).map(drop))?;
    Ok((functions, all))
}

/// Refuses brackets that do not match or are nested too deep, statements that are too long, and functions with too many `else`.
fn brackets(code: &[Token<'_>]) -> Result<(), Refused> {
    let mut open: Vec<&Token<'_>> = Vec::new();
    let (mut statement, mut branches) = (0, 0);
    for token in code {
        statement += 1;
        match token.text {
            "(" | "[" | "{" => open.push(token),
            ")" | "]" | "}" => {
                let opened = open.pop().ok_or_else(|| (token.at, format!("`{}` closes nothing", token.text)))?;
                if !matches!((opened.text, token.text), ("(", ")") | ("[", "]") | ("{", "}")) {
                    return Err((
                        token.at,
                        format!("`{}` does not match the `{}` on line {}", token.text, opened.text, opened.at.line),
                    ));
                }
            }
            "else" => branches += 1,
            "fn" => branches = 0,
            _ => {}
        }
        if matches!(token.text, ";" | "{" | "}") {
            statement = 0;
        }
        let too = |what: &str, most: usize| Err((token.at, format!("{what}; at most {most} are allowed")));
        if open.len() > DEEPEST {
            return too("brackets are nested too deep", DEEPEST);
        } else if statement > LONGEST_STATEMENT {
            return too("the statement has too many tokens", LONGEST_STATEMENT);
        } else if branches > MOST_ELSE {
            return too("the function has too many `else` branches", MOST_ELSE);
        }
    }
    open.pop().map_or(Ok(()), |token| Err((token.at, format!("this `{}` is not closed", token.text))))
}

/// Finds the definitions of a text, in order.
fn definitions(code: &[Token<'_>]) -> Result<Vec<Definition>, Refused> {
    let (mut all, mut at) = (Vec::new(), 0);
    while at < code.len() {
        let Token { text, at: place, .. } = code[at];
        let Some(name) = code.get(at + 1).filter(|name| name.kind == TokenKind::Word) else {
            if matches!(text, ";") {
                at += 1;
                continue;
            }
            return Err((place, outside(text)));
        };
        let ends =
            |at: usize| code[at..].iter().position(|token| matches!(token.text, "{" | ";")).map(|found| at + found);
        let end = ends(at).ok_or((place, format!("`{text} {}` does not end", shortened(name.text))))?;
        let (last, body) = match (text, code[end].text) {
            ("fn" | "struct", "{") => {
                let close = closing(code, end);
                (close, Some(end + 1..close))
            }
            ("const" | "alias", ";") => (end, None),
            _ => return Err((place, outside(text))),
        };
        all.push(Definition { name: at + 1, tokens: at..last + 1, body });
        at = last + 1;
    }
    Ok(all)
}

/// The message for a word that cannot begin a definition.
fn outside(word: &str) -> String {
    match (word, REFUSED.iter().find(|(refused, _)| *refused == word)) {
        ("var", _) => "variables outside functions are not available: declare a state with `//@ state NAME`".to_owned(),
        ("@", _) => ATTRIBUTES.to_owned(),
        (_, Some((_, reason))) => (*reason).to_owned(),
        _ => format!("expected `fn`, `struct`, `const` or `alias`, but found `{}`", shortened(word)),
    }
}

const ATTRIBUTES: &str = "attributes are not available: a text has no entry points and binds no buffers";

/// The index of the bracket that closes the bracket at `open`. `brackets` has checked that there is one.
fn closing(code: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in code.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    code.len() - 1
}

/// Refuses words that no text may use, and names that neither the text nor WGSL defines.
fn words(role: Role, code: &[Token<'_>]) -> Result<(), Refused> {
    let text = |at: usize| code.get(at).map_or("", |token| token.text);
    let is_defined = |&at: &usize| {
        let before = at.checked_sub(1).map_or("", text);
        ["fn", "struct", "const", "alias", "let", "var"].contains(&before)
            || text(at + 1) == ":" && ["(", ","].contains(&before)
    };
    let own: Vec<&str> = (0..code.len()).filter(is_defined).map(text).collect();
    for (at, token) in code.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).map_or("", text), text(at + 1));
        let refused = |message: String| Err((token.at, message));
        if token.text == "@" {
            return refused(ATTRIBUTES.to_owned());
        }
        let operand = at > 0
            && (code[at - 1].kind != TokenKind::Sign || [")", "]"].contains(&before))
            && (["true", "false"].contains(&before) || !KEYWORDS.contains(&before));
        if token.text == "&" && !operand {
            return refused(POINTERS.to_owned());
        }
        if token.kind != TokenKind::Word || before == "." {
            continue;
        }
        if let Some((_, reason)) = REFUSED.iter().find(|(word, _)| *word == token.text) {
            return refused((*reason).to_owned());
        }
        if token.text.starts_with("__") {
            return refused(format!("`{}` begins with two underscores, which WGSL reserves", shortened(token.text)));
        }
        if token.text == "var" && after == "<" {
            return refused("only plain `var` is available, without an address space".to_owned());
        }
        let is_given = GIVEN.contains(&token.text) || role == Role::Base && token.text == WITHIN_SQUARES;
        // The name of a member of a struct.
        let is_member = after == ":" && ["{", ","].contains(&before);
        if !is_known(token.text) && !own.contains(&token.text) && !is_given && !is_member {
            let name = shortened(token.text);
            return refused(match after {
                "(" => format!(
                    "the function `{name}` is not available: define it, or use a WGSL function that applies to each component separately"
                ),
                _ => format!("`{name}` is not defined"),
            });
        }
    }
    Ok(())
}

/// Refuses structs within structs, because their size can grow exponentially.
fn members(code: &[Token<'_>], all: &[Definition], own: &[&str]) -> Result<(), Refused> {
    let structs = all.iter().filter(|definition| code[definition.tokens.start].text == "struct");
    for at in structs.filter_map(|definition| definition.body.clone()).flatten() {
        let is_name = code.get(at + 1).is_some_and(|after| after.text == ":");
        if !is_name && (own.contains(&code[at].text) || GIVEN.contains(&code[at].text)) {
            return Err((code[at].at, "members of a struct must be scalars or vectors".to_owned()));
        }
    }
    Ok(())
}

/// A loop: the tokens of its body, and its number of rounds.
struct Loop {
    body: Range<usize>,
    rounds: u64,
}

/// Reads a loop of the form `for (var i = 0; i < 8; i++) {`, or with `i += 2`. Returns `None` for any other form.
fn bounded(code: &[Token<'_>], at: usize) -> Option<Result<Loop, Refused>> {
    let text = |at: usize| code.get(at).map(|token| token.text);
    // Numbers are small, so that no counter overflows.
    let small = |number: &u64| *number <= LARGEST_END;
    let whole = |at: usize| text(at)?.trim_end_matches(['i', 'u']).parse::<u64>().ok().filter(small);
    let is = |at: usize, words: &[&str]| words.iter().enumerate().all(|(i, word)| text(at + i) == Some(word));
    let name = code.get(at + 3).filter(|token| token.kind == TokenKind::Word)?.text;
    // A type may follow the name.
    let is_typed = text(at + 4) == Some(":");
    if is_typed && !["i32", "u32"].contains(&text(at + 5)?) {
        return None;
    }
    let equals = if is_typed { at + 6 } else { at + 4 };
    let (first, last) = (whole(equals + 1)?, whole(equals + 5)?);
    let header = is(at, &["for", "(", "var"])
        && is(equals, &["="])
        && is(equals + 2, &[";", name, "<"])
        && is(equals + 6, &[";", name]);
    let (stride, end) = match text(equals + 8)? {
        "++" => (1, equals + 9),
        "+=" => (whole(equals + 9)?, equals + 10),
        _ => return None,
    };
    if !header || stride == 0 || !is(end, &[")", "{"]) {
        return None;
    }
    let body = end + 2..closing(code, end + 1);
    // A loop that never runs is compiled too, so its body counts once.
    let rounds = last.saturating_sub(first).div_ceil(stride).max(1);
    if rounds > MOST_ROUNDS {
        return Some(Err((code[at].at, format!("the loop runs {rounds} times; at most {MOST_ROUNDS} are allowed"))));
    }
    let changes = |inside: usize| {
        let after = code[inside + 1..].iter().map(|token| token.text).find(|text| *text != ")").unwrap_or_default();
        let assigns = after.ends_with('=') && !["==", "<=", ">=", "!="].contains(&after);
        assigns || ["++", "--"].contains(&after) || ["let", "var", "const"].contains(&code[inside - 1].text)
    };
    let is_counter = |&inside: &usize| code[inside].text == name && code[inside - 1].text != ".";
    if let Some(inside) = body.clone().filter(is_counter).find(|&inside| changes(inside)) {
        let message = format!("`{}` counts the rounds of this loop, and must not change in its body", shortened(name));
        return Some(Err((code[inside].at, message)));
    }
    Some(Ok(Loop { body, rounds }))
}

/// Checks that the text defines the functions that kernels call, with the right types.
fn signatures(role: Role, code: &[Token<'_>], all: &[Definition]) -> Result<Functions, Refused> {
    let mut found = Vec::new();
    for (_, name, parameters, result) in MAIN.iter().filter(|(of, ..)| *of == role) {
        let own = all
            .iter()
            .find(|definition| code[definition.name].text == *name && code[definition.tokens.start].text == "fn");
        let Some(definition) = own else {
            if *name != "direction_of" {
                return Err((Place::FIRST, format!("the text lacks its function: `{}`", signature(name))));
            }
            found.push(None);
            continue;
        };
        let at = code[definition.tokens.start].at;
        let open = definition.name + 1;
        let close = closing(code, open);
        let body = definition.body.clone().map_or(close, |body| body.start - 1);
        // The parameters without spaces, each as `name:type`.
        let mut types = vec![String::new()];
        let mut depth = 0;
        for token in &code[(open + 1).min(close)..close] {
            match token.text {
                "," if depth == 0 => types.push(String::new()),
                _ => {
                    depth += match token.text {
                        "<" => 1,
                        ">" => -1,
                        _ => 0,
                    };
                    *types.last_mut().expect("it has one") += token.text;
                }
            }
        }
        types.retain(|parameter| !parameter.is_empty());
        let typed: Vec<_> = types.iter().map(|parameter| parameter.split_once(':').map_or("", |(_, ty)| ty)).collect();
        let given: String = code[(close + 1).min(body)..body].iter().map(|token| token.text).collect();
        let same = |given: &str, expected: &str| given == expected || (given == "vec4f" && expected == "vec4<f32>");
        let fits = typed.len() == parameters.len()
            && typed.iter().zip(*parameters).all(|(given, (_, expected))| same(given, expected));
        if !fits || !given.strip_prefix("->").is_some_and(|given| same(given, result)) {
            return Err((at, wrong_signature(name)));
        }
        found.push(Some(at));
    }
    Ok(Functions { main: found[0].expect("it was found"), direction: found.get(1).copied().flatten() })
}

/// The number of tokens that a call of a function runs through. Refuses recursion, and more than [`MOST_WORK`] tokens.
fn work<'a>(
    code: &[Token<'a>],
    all: &[Definition],
    loops: &[Loop],
    index: usize,
    above: &mut Vec<usize>,
    known: &mut [Option<u64>],
) -> Result<u64, Refused> {
    let Some(body) = all[index].body.clone() else { return Ok(1) };
    if let Some(work) = known[index] {
        return Ok(work);
    }
    let name = &code[all[index].name];
    if above.contains(&index) || above.len() > DEEPEST {
        let message =
            if above.len() > DEEPEST { "is called too deeply" } else { "calls itself, which WGSL does not allow" };
        return Err((name.at, format!("`{}` {message}", shortened(name.text))));
    }
    above.push(index);
    let mut sum = 0u64;
    for at in body {
        let around = loops.iter().filter(|of| of.body.contains(&at));
        let times = around.fold(1u64, |times, of| times.saturating_mul(of.rounds));
        let is_call = code.get(at + 1).is_some_and(|after| after.text == "(");
        let called = all.iter().position(|other| is_call && code[other.name].text == code[at].text);
        let own = called.map_or(Ok(1), |called| work(code, all, loops, called, above, known))?;
        sum = sum.saturating_add(own.saturating_mul(times));
    }
    above.pop();
    if sum > MOST_WORK {
        let message = format!(
            "`{}` takes too long: {sum} tokens with loops unrolled and calls inlined; at most {MOST_WORK} are allowed",
            shortened(name.text)
        );
        return Err((name.at, message));
    }
    known[index] = Some(sum);
    Ok(sum)
}
