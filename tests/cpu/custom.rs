//! Texts of custom bases and policies: what is refused, with its place, and what is accepted.

use wgpu_optim::base::CustomBase;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::policy::{CustomPolicy, Mgup, Selection};
use wgpu_optim::{Error, LrSchedule, ParamGroups, PlanLimits, Program, Recipe, TensorSpec, reference};

/// A base without hyper-parameters, around which wrong texts are written.
const HEAD: &str = "//@ base own\n//@ state m\n";
const UPDATE: &str = "fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {\n    return Update(g, old);\n}\n";

/// A base with this before the function.
fn before(text: &str) -> String {
    format!("{HEAD}{text}\n{UPDATE}")
}

/// A base whose function does this first. The first line of it is the fourth.
fn inside(text: &str) -> String {
    format!(
        "{HEAD}fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {{\n{text}\n    return Update(g, old);\n}}\n"
    )
}

fn refused(text: &str) -> (usize, usize, String) {
    let checked = CustomBase::new(text).map(Recipe::from);
    match checked.and_then(|recipe| recipe.validate()) {
        Err(Error::Custom { line, column, message, text }) => {
            assert!(text.starts_with("custom base"), "{text}");
            (line, column, message)
        }
        other => panic!("{other:?} for\n{text}"),
    }
}

#[test]
fn wrong_texts_are_refused_with_their_place() {
    let many = |n: usize, text: &str, between: &str| vec![text; n].join(between);
    let chain: String =
        (1..30).map(|i| format!("fn h{i}() -> f32 {{ return h{}() + h{}(); }}\n", i - 1, i - 1)).collect();
    let never: String = (1..30)
        .map(|i| {
            let calls = format!("y = h{}(y) + h{}(y);", i - 1, i - 1);
            format!("fn h{i}(x: f32) -> f32 {{ var y = x; for (var i = 1; i < 1; i++) {{ {calls} }} return y; }}\n")
        })
        .collect();
    let never = format!("fn h0(x: f32) -> f32 {{ return x; }}\n{never}");
    let texts: Vec<(String, usize, usize, &str)> = vec![
        // Declarations.
        (UPDATE.into(), 1, 1, "lacks its name: begin it with a line `//@ base NAME`"),
        (String::new(), 1, 1, "lacks its name"),
        (format!("//@ state m\n{UPDATE}"), 1, 1, "lacks its name"),
        (format!("//@ policy own\n{UPDATE}"), 1, 1, "this text is a policy, but a base is needed"),
        (format!("//@ base adamw\n{UPDATE}"), 1, 1, "`adamw` is the name of a built-in base"),
        (format!("//@ base own\n//@ base other\n{UPDATE}"), 2, 1, "the text is already named `own`"),
        (format!("//@ base Own\n{UPDATE}"), 1, 1, "`Own` is not a name"),
        (format!("//@ base\n{UPDATE}"), 1, 1, "`` is not a name"),
        (before("//@ moment m"), 3, 1, "`moment m` is not a declaration; allowed are `base NAME`"),
        (before("//@ state m"), 3, 1, "the name `m` is used twice"),
        (before("//@ state 1m"), 3, 1, "`1m` is not a name"),
        (before("//@ state new"), 3, 1, "`new` is a reserved word of WGSL"),
        (before("//@ state master"), 3, 1, "may not be called `master`"),
        (before("//@ state v = much"), 3, 1, "`much` is not a number"),
        (before("//@ state a\n//@ state b\n//@ state c\n//@ state d"), 6, 1, "at most 4 states"),
        (before("//@ decay beta"), 3, 1, "`decay` needs a default"),
        (before("//@ decay beta = 1"), 3, 1, "1 must be in [0, 1)"),
        (before("//@ decay beta = 0.9 in [0, 1]"), 3, 1, "a decay rate lies in [0, 1)"),
        (before("//@ scalar eps = 1e-8 in 0 to 1"), 3, 1, "`0 to 1` is not a range"),
        (before("//@ scalar eps = -1 in [0, inf)"), 3, 1, "-1 must be in [0, inf)"),
        (before("//@ scalar eps = 1e300"), 3, 1, "1e300 must be finite in f32"),
        (before("//@ scalar t = 1"), 3, 1, "the name `t` is used twice"),
        (before("//@ decay b = 0.5\n//@ scalar b_correction = 1"), 4, 1, "the name `b_correction` is used twice"),
        (before("//@ bias_corrected m m"), 3, 1, "`bias_corrected` needs two names declared with `decay`"),
        (before(&many(7, "//@ decay b = 0.5", "\n").replace("b =", "b1 =")), 4, 1, "the name `b1` is used twice"),
        (before(&(0..7).map(|i| format!("//@ decay b{i} = 0.5\n")).collect::<String>()), 9, 1, "room for 24 words"),
        (before("//@ signs always"), 3, 1, "`signs always` is not a declaration"),
        (before("//@ lr -1"), 3, 1, "-1 must be in [0, inf)"),
        // Characters and brackets.
        (before("const ε = 1.0;"), 3, 7, "`\\u{3b5}` is only allowed in comments"),
        (before("/* no end"), 3, 1, "this comment does not end"),
        (inside("    let x = (1.0;"), 6, 1, "`}` does not match the `(` on line 4"),
        (format!("{UPDATE}//@ base own\nfn f() {{"), 5, 8, "this `{` is not closed"),
        (inside("    let x = 1.0);"), 4, 16, "`)` does not match the `{` on line 3"),
        (before("}"), 3, 1, "`}` closes nothing"),
        (inside(&format!("    let x = {}1.0{};", "(".repeat(40), ")".repeat(40))), 4, 44, "too deep; at most 32"),
        (inside(&format!("    let x = {};", many(200, "1.0", " + "))), 4, 773, "too many tokens; at most 256"),
        (inside(&format!("    {}", many(40, "if g.x > 0.0 {}", " else "))), 4, 693, "too many `else` branches"),
        ("a".repeat(20_000), 1, 1, "20000 bytes; at most 16384"),
        // Definitions.
        (HEAD.into(), 1, 1, "lacks its function: `fn update(old: State, g: vec4<f32>, scalars: Scalars) -> Update`"),
        (
            format!("{HEAD}fn update(old: State) -> Update {{\n    return old;\n}}"),
            3,
            1,
            "`update` must be `fn update(old",
        ),
        (
            format!("{HEAD}fn update(o: State, g: vec4<f32>, s: Scalars) -> State {{ return o; }}"),
            3,
            1,
            "`update` must be",
        ),
        (format!("{HEAD}const update = 1;"), 1, 1, "lacks its function"),
        (
            before("fn direction_of(s: State) -> f32 { return 1.0; }"),
            3,
            1,
            "`direction_of` must be `fn direction_of(state",
        ),
        (before("var<private> count: u32;"), 3, 1, "variables outside functions are not available"),
        (before("@group(0) @binding(0) var<storage> x: array<f32>;"), 3, 1, "attributes are not available"),
        (before("@compute @workgroup_size(1) fn main() {}"), 3, 1, "attributes are not available"),
        (before("override beta: f32 = 0.9;"), 3, 1, "hyper-parameters are declared in a comment"),
        (before("enable f16;"), 3, 1, "directives are not available"),
        (before("import package::lib::skip::skips;"), 3, 1, "imports are not available"),
        (before("let x = 1;"), 3, 1, "expected `fn`, `struct`, `const` or `alias`, but found `let`"),
        (before("fn max(a: f32) -> f32 { return a; }"), 3, 4, "`max` is a name of WGSL"),
        (before("struct State { m: f32 }"), 3, 8, "`State` is predefined in every text"),
        (before("fn within_squares() {}"), 3, 4, "`within_squares` is predefined in every text"),
        (before("struct A { x: f32 }\nstruct B { a: A }"), 4, 15, "members of a struct must be scalars or vectors"),
        (before("const x"), 3, 1, "expected `fn`, `struct`, `const` or `alias`, but found `const`"),
        // What a function may not do.
        (inside("    discard;"), 4, 5, "`discard` is only for fragment shaders"),
        (inside("    workgroupBarrier();"), 4, 5, "the function `workgroupBarrier` is not available"),
        (inside("    let x = textureLoad(t, 1, 1);"), 4, 13, "the function `textureLoad` is not available"),
        (inside("    let x = dot(g, g);"), 4, 13, "the function `dot` is not available"),
        (inside("    let x = nothing(g);"), 4, 13, "the function `nothing` is not available"),
        (inside("    var x: array<f32, 4>;"), 4, 12, "arrays are not available"),
        (inside("    var x = 1.0;\n    let p = &x;"), 5, 13, "pointers are not available"),
        (inside("    var<private> x = 1.0;"), 4, 5, "only plain `var` is available"),
        (inside("    let __x = 1.0;"), 4, 9, "two underscores"),
        (before("fn again(x: f32) -> f32 { return again(x); }"), 3, 4, "`again` calls itself"),
        (before("fn a() -> f32 { return b(); }\nfn b() -> f32 { return a(); }"), 3, 4, "`a` calls itself"),
        (before(&format!("fn h0() -> f32 {{ return 1.0; }}\n{chain}")), 12, 4, "takes too long"),
        // Loops.
        (inside("    loop { break; }"), 4, 5, "a loop must end: write it as `for (var i = 0; i < 8; i++)`"),
        (inside("    while g.x > 0.0 {}"), 4, 5, "a loop must end"),
        (inside("    for (var i = 0; i < i32(g.x); i++) {}"), 4, 5, "a loop must end"),
        (inside("    for (;;) {}"), 4, 5, "a loop must end"),
        (inside("    for (var i = 0; i < 8; i += 0) {}"), 4, 5, "a loop must end"),
        (inside("    for (var i: f32 = 0; i < 8; i += 1) {}"), 4, 5, "a loop must end"),
        (inside("    for (var i = 4294967290u; i < 4294967295u; i += 10u) {}"), 4, 5, "a loop must end"),
        (inside("    for (var i = 0; i < 1000; i++) {}"), 4, 5, "the loop runs 1000 times; at most 64"),
        (inside("    for (var i = 0; i < 8; i++) { i = 0; }"), 4, 35, "`i` counts the rounds of this loop"),
        (inside("    for (var i = 0; i < 8; i++) { (i) -= 1; }"), 4, 36, "`i` counts the rounds of this loop"),
        (inside("    for (var i = 0; i < 8; i++) { let i = 2; }"), 4, 39, "`i` counts the rounds of this loop"),
        // Code that never runs is compiled all the same.
        (before(&never), 10, 4, "takes too long"),
        // What the compiler finds.
        (before("fn h(dot: f32) -> f32 { return dot; }\nfn k(g: f32) -> f32 { return dot(g, g); }"), 4, 30, "`dot`"),
        (inside("    // \u{c}/*\n    let x = y; // \u{c}*/"), 5, 13, "`y` is not defined"),
        (inside("    let q = sign(u32(g.x));"), 4, 13, "`sign` of an unsigned number is not available on every GPU"),
        (inside("    let x = 1.0 +;"), 4, 18, "expected"),
        (inside("    let x: f32 = vec4<f32>();"), 4, 9, "type"),
        (inside("    let x = y;"), 4, 13, "`y` is not defined"),
        (inside("    let x = tensors.skip;"), 4, 13, "`tensors` is not defined"),
        (inside("    let x = old.v;"), 4, 17, "invalid field accessor `v`"),
        (inside("    let x = s.beta1;"), 4, 15, "invalid field accessor `beta1`"),
        (inside("    let x: f64 = 1.0lf;"), 4, 12, "`f64` is not defined"),
        (inside("    let x = 1.0lf;"), 4, 13, "a type that not every GPU supports"),
        (inside("    let x: mat2x2<f32> = y;"), 4, 12, "`mat2x2` is not defined"),
        (before("fn f(x: f32) -> f32 { if x > 0.0 { return x; } }"), 3, 1, "must return a value of its return type"),
        (before("const big = 1e39f;"), 3, 13, "numeric literal not representable"),
        (inside("    let x = /* é */ y;"), 4, 21, "`y` is not defined"),
    ];
    assert!(texts.len() > 50);
    let wrong: Vec<String> = texts
        .iter()
        .filter_map(|(text, line, column, expected)| {
            let (at, of, message) = refused(text);
            let is_right = (at, of) == (*line, *column) && message.contains(expected);
            (!is_right).then(|| format!("{at}:{of}: {message}\n    not {line}:{column}: {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_policies_are_refused_with_their_place() {
    let phi = "fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> { return score; }";
    for (text, line, column, expected) in [
        (format!("//@ policy mgup\n{phi}"), 1, 1, "`mgup` is the name of a built-in policy"),
        (format!("//@ policy custom\n{phi}"), 1, 1, "`custom` is the name of a built-in policy"),
        (format!("//@ policy own\n//@ state m\n{phi}"), 2, 1, "`state m` is not a declaration; allowed are `policy"),
        (
            format!("//@ policy own\n//@ scalar a = 1\n//@ scalar b = 1\n//@ scalar c = 1\n{phi}"),
            4,
            1,
            "at most 2 scalars",
        ),
        (
            "//@ policy own\n".into(),
            1,
            1,
            "lacks its function: `fn phi(score: vec4<f32>, scalars: Scalars) -> vec4<f32>`",
        ),
        (
            format!("//@ policy own\n{}", phi.replace("return score", "return within_squares(score)")),
            2,
            60,
            "not available",
        ),
        (
            format!("//@ policy own\n{}", phi.replace("return score", "return score.x")),
            2,
            60,
            "must return a value of its return type",
        ),
    ] {
        let checked = CustomPolicy::new(&text).map(|policy| Recipe::adamw(0.1).with_policy(policy));
        let refused = checked.and_then(|recipe| recipe.validate());
        let Err(Error::Custom { line: at, column: of, message, .. }) = refused else { panic!("{refused:?}: {text}") };
        assert!((at, of) == (line, column) && message.contains(expected), "{at}:{of}: {message}, not {expected}");
    }
}

#[test]
fn texts_may_be_written_in_any_way() {
    let texts = [
        // All on one line, with helpers after their use, structs, switches, bounded loops and names of the crate's own kernels.
        "fn update(old: State, g: vec4f, s: Scalars) -> Update { let key = clip(g); return Update(key, State(key)); } \
         fn clip(x: vec4f) -> vec4f { var tensors = x; for (var i = 0u; i < 4u; i += 2u) { tensors = tensors * 0.5; } return tensors; }",
        "const SKIPS = true;\nstruct Chunk {\n  grid: vec4<f32>, // a member\n  chunks: f32\n}\nalias V = vec4<f32>;\n\n\
         fn update(old: State,\n          g: vec4<f32>,\n          s: Scalars) -> Update\n{\n    let step = Chunk(g, 1.0);\n    if SKIPS { return Update(step.grid, old); }\n\
         switch i32(g.x) { case 1, 2: { return Update(V(), old); } default: {} }\n    let x = u32(g.x) & 1u; let y = -g.x - -g.y; return Update(g, old);\n}",
        // Names that joined once collided, and members that are called as buffers of the kernels are.
        "//@ state b\n//@ state m_and_b\nstruct P { a: f32, counters: f32, tensors: f32 }\n\
         fn update(old: State, g: vec4<f32>, s: Scalars) -> Update { let new = 2.0; let p = P(1.0, new, 3.0); return Update(g * p.tensors, old); }",
        "fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {\r\n\treturn Update(within_squares(g), old);\r\n}\r\n// an end without a line",
    ];
    for text in texts {
        let base = CustomBase::new(&format!("{HEAD}//@ signs\n{text}")).unwrap();
        // A plain step binds only its tables and the tensors.
        let specs = [TensorSpec::new("w", [20_000])];
        let program = Program::new(&specs, Recipe::from(base), PlanLimits::WEBGPU, Matmul::Tiles).unwrap();
        let bindings = &program.kernels[0].bindings;
        assert!(!bindings.iter().any(|binding| binding.name == "counters"), "{bindings:?}");
        // In every kernel of a step, too.
        let specs = [TensorSpec::new("w", [20_000])];
        let program = Program::new(&specs, Recipe::from(base).mgup(), PlanLimits::WEBGPU, Matmul::Tiles).unwrap();
        for kernel in &program.kernels {
            let parsed = naga::front::wgsl::parse_str(&kernel.source);
            let module = parsed.unwrap_or_else(|e| panic!("{}:\n{}", kernel.name, e.emit_to_string(&kernel.source)));
            let mut validator = naga::valid::Validator::new(Default::default(), naga::valid::Capabilities::empty());
            validator.validate(&module).unwrap_or_else(|e| panic!("{}: {e:?}", kernel.name));
        }
    }
}

#[test]
fn hyper_parameters_have_ranges_names_and_schedules() {
    let text = before("//@ lr 0.02\n//@ decay beta = 0.9\n//@ scalar eps = 1e-8 in (0, 1]");
    let base = CustomBase::new(&text).unwrap();
    assert_eq!((base.lr, base.name(), base.wgsl()), (0.02, "own", text.as_str()));
    assert_eq!(base.hyper_parameters().collect::<Vec<_>>(), [("beta", 0.9), ("eps", 1e-8)]);
    let message = base.scalar("gamma", 1.0).unwrap_err().to_string();
    assert_eq!(message, "recipe: base.scalars.gamma: `own` declares `beta`, `eps`");
    for (name, value, expected) in [("beta", 1.0, "[0, 1)"), ("eps", 0.0, "(0, 1]"), ("eps", f64::NAN, "(0, 1]")] {
        let message = Recipe::from(base.scalar(name, value).unwrap()).validate().unwrap_err().to_string();
        assert!(message.contains(&format!("`base.scalars.{name}`")) && message.ends_with(expected), "{message}");
    }

    let groups = |schedule| ParamGroups::from(base).with_scalar_schedule(0, "beta", schedule);
    groups(LrSchedule::linear(10, 0.5)).validate().unwrap();
    let function = groups(LrSchedule::function(|_| 1.0)).validate().unwrap_err().to_string();
    assert!(function.contains("is a function"), "{function}");
    let unknown = ParamGroups::from(base).with_scalar_schedule(0, "gamma", LrSchedule::constant());
    assert!(unknown.validate().unwrap_err().to_string().contains("declares `beta`, `eps`"));
    let built_in = ParamGroups::from(Recipe::lion(1e-3)).with_scalar_schedule(0, "beta", LrSchedule::constant());
    assert!(built_in.validate().unwrap_err().to_string().contains("not a hyper-parameter of a custom base"));
    let none = ParamGroups::from(base).with_scalar_schedule(1, "beta", LrSchedule::constant());
    assert_eq!(none.validate().unwrap_err().code(), "unknown_group");
}

#[test]
fn json_holds_the_text_or_names_its_file() {
    let text = before("//@ scalar eps = 1e-8");
    let recipe =
        Recipe::from(CustomBase::new(&text).unwrap().lr(0.5).weight_decay(0.1).scalar("eps", 2.0).unwrap()).cautious();
    assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("own.wgsl"), &text).unwrap();
    let json = folder.path().join("own.json");
    let section = r#"{"type": "custom", "file": "own.wgsl", "lr": 0.5, "weight_decay": 0.1, "scalars": {"eps": 2}}"#;
    std::fs::write(&json, format!(r#"{{"base": {section}, "policy": {{"type": "cautious"}}}}"#)).unwrap();
    assert_eq!(Recipe::from_file(&json).unwrap(), recipe);
    let refused = |json: &str| Recipe::from_json(json).unwrap_err().to_string();
    assert!(refused(&format!(r#"{{"base": {section}}}"#)).contains("read the recipe with `Recipe::from_file`"));
    assert!(refused(r#"{"base": {"type": "custom"}}"#).contains("base: needs either the text as `wgsl`"));
    let own = serde_json::to_string(&text).unwrap();
    let with = |rest: &str| format!(r#"{{"base": {{"type": "custom", "wgsl": {own}{rest}}}}}"#);
    assert!(refused(&with(r#", "eps": 1"#)).contains("base.eps: unknown field"));
    assert!(refused(&with(r#", "scalars": {"delta": 1}"#)).contains("base.scalars.delta: `own` declares `eps`"));
    assert!(refused(&with(r#", "scalars": {"eps": "x"}"#)).contains("base.scalars.eps: invalid type"));
    assert!(refused(&with(", \"wgsl\": \"\"")).contains("twice"));
    std::fs::write(&json, r#"{"base": {"type": "custom", "file": "other.wgsl"}}"#).unwrap();
    let missing = Recipe::from_file(&json).unwrap_err().to_string();
    assert!(missing.starts_with("recipe: base.file: cannot read ") && missing.contains("other.wgsl"), "{missing}");
}

#[test]
fn the_tutorial_and_the_examples_hold_what_compiles() {
    let page = include_str!("../../docs/custom.md");
    let (_, block) = page.split_once("```wgsl\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let file = include_str!("../../examples/adabelief.wgsl");
    assert!(file.ends_with(block), "the page shows what the file holds, without its first comment");
    for text in [file, include_str!("../../examples/ademamix.wgsl")] {
        Recipe::from(CustomBase::new(text).unwrap()).mgup().validate().unwrap();
    }
    // Every limit that the page states.
    for word in
        ["16 KiB", "256 tokens", "more than 32 deep", "4,096 tokens", "at most 64 rounds", "at most 4.", "24 words"]
    {
        assert!(page.contains(word), "{word}");
    }
}

#[test]
fn exact_selection_needs_a_direction_that_can_be_found_again() {
    let base = CustomBase::new(&before("")).unwrap();
    let message = Recipe::from(base).mgup().validate().unwrap_err().to_string();
    assert!(message.contains("`base` is `own`") && message.contains("`direction_of`"), "{message}");
    Recipe::new(base, Mgup::default().selection(Selection::Approximate)).validate().unwrap();
    Recipe::from(CustomBase::new(&before("//@ signs")).unwrap()).mgup().validate().unwrap();
    let policy =
        CustomPolicy::new("//@ policy own\nfn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> { return score; }")
            .unwrap();
    let message = Recipe::muon(0.1).with_policy(policy).validate().unwrap_err().to_string();
    assert!(message.contains("gone after orthogonalization"), "{message}");
}

#[test]
fn a_twin_steps_on_the_cpu_and_without_one_it_is_refused() {
    let text =
        before("//@ decay mu = 0.5").replace("return Update(g, old)", "return Update(old.m + g, State(s.mu * g))");
    let base = CustomBase::new(&text.replace("state m", "state m = 0.25")).unwrap().lr(1.0);
    let refused = reference::Tensor::new(base.into(), vec![0.0f64]).unwrap_err().to_string();
    assert!(refused.contains("give it with `twin`") && !Recipe::from(base).has_twin(), "{refused}");
    let twin = base.twin(|state, g, s| {
        let direction = state[0] + g + s["lr"] * (s["t"] - 1.0) * (1.0 - s["mu"] - s["one_minus_mu"]);
        state[0] = s["mu"] * g;
        direction * s["mu_correction"]
    });
    let mut tensor = reference::Tensor::with_shape(twin.into(), &TensorSpec::new("w", [1]), vec![0.0f64]).unwrap();
    assert_eq!(tensor.step(&[1.0]).direction, [1.25 * 0.5]);
    assert_eq!(tensor.step(&[3.0]).direction, [3.5 * 0.75]);
    assert_eq!((tensor.state("m"), tensor.param[0]), (Some(&[1.5][..]), -(0.625 + 2.625)));
}
