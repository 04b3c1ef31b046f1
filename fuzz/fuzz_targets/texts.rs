//! Any text as a custom base or policy: refused with a place in it, or valid in every kernel and stepped by a device without an error.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use wgpu_optim::base::CustomBase;
use wgpu_optim::policy::CustomPolicy;
use wgpu_optim::{Error, GpuOptimizer, Recipe, TensorSpec, wgpu};
use wgpu_optim_fuzz::device;

/// Texts to begin with.
const TEXTS: [&str; 6] = [
    include_str!("../../tests/custom/adamw.wgsl"),
    include_str!("../../tests/custom/lion.wgsl"),
    include_str!("../../tests/custom/grams.wgsl"),
    include_str!("../../examples/ademamix.wgsl"),
    include_str!("../../crates/wgpu-optim-cli/src/templates/policy.wgsl"),
    "//@ base all\n//@ state m = 0.5\nconst A = 2;\nalias V = vec4<f32>;\nstruct Pair { a: vec4<f32>, b: f32, }\nfn twice(x: V) -> Pair {\n    \
     return Pair(2.0 * x, 1.0);\n}\nfn update(old: State, g: vec4<f32>, s: Scalars) -> Update {\n    var x = old.m;\n    \
     for (var i = 0u; i < 4u; i += 2u) { x += twice(g).a * f32(i); }\n    switch A { case 1, 2: { x = -x; } default: { x = V(); } }\n    \
     if all(x > V()) { return Update(x, old); } else if s.t == 1u { x = fma(x, g, g); }\n    return Update(x, State(x));\n}\n",
];

/// Words that a text may be given.
const WORDS: &[&str] = &[
    "//@ state v = 1\n",
    "//@ decay b = 0.5\n",
    "//@ scalar t = 1 in [0, 2)\n",
    "//@ signs\n",
    "//@ bias_corrected b b\n",
    "fn",
    "let",
    "var",
    "const",
    "struct",
    "alias",
    "return",
    "if",
    "else",
    "for",
    "loop",
    "while",
    "switch",
    "case",
    "default",
    "break",
    "continue",
    "discard",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    ";",
    ",",
    ".",
    ":",
    "=",
    "==",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&",
    "|",
    "!",
    "~",
    "++",
    "+=",
    "->",
    "@",
    "vec4<f32>",
    "vec4f",
    "f32",
    "u32",
    "i32",
    "bool",
    "State",
    "Update",
    "Scalars",
    "s",
    "g",
    "old",
    "x",
    "i",
    "0",
    "1u",
    "1.5",
    "1e30",
    "0x7fffffff",
    "true",
    "sqrt",
    "pow",
    "select",
    "bitcast<u32>",
    "all",
    "max",
    "key",
    "clip",
    "tensors",
    "update",
    "direction_of",
    "phi",
    "within_squares",
    "mat2x2<f32>",
    "array<f32, 4>",
    "ptr<function, f32>",
    "f16",
    "workgroupBarrier()",
    "override",
    "\u{e9}",
    "/*",
    "*/",
    "//",
    "\n",
];

#[derive(Debug, Arbitrary)]
enum Input {
    /// A text as it is.
    Text(String),
    /// One of the texts with edits: where, what, and whether what follows is removed.
    Edited(u8, Vec<(u16, u8, u8)>),
}

impl Input {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Edited(which, edits) => {
                let mut text = TEXTS[which as usize % TEXTS.len()].to_owned();
                for (at, word, removed) in edits.into_iter().take(16) {
                    let at = text.floor_char_boundary(at as usize % (text.len() + 1));
                    let end = text.floor_char_boundary(at + removed as usize % 16);
                    text.replace_range(at..end.max(at), WORDS[word as usize % WORDS.len()]);
                }
                text
            }
        }
    }
}

/// Bytes of edits, which grow slowly from nothing otherwise.
fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let mut random = 1u64;
    let mut byte = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 56) as u8
    };
    (0..256).map(move |i| (0..16 + i % 64).map(|at| if at == 3 { 0xff } else { byte() }).collect())
}

static DEVICE: LazyLock<(wgpu::Device, wgpu::Queue)> = LazyLock::new(device);

fuzz_target!(init: {
    wgpu_optim_fuzz::seed(seeds());
    LazyLock::force(&DEVICE);
}, |input: Input| {
    let text = input.text();
    let recipe = match text.contains("//@ policy") {
        true => CustomPolicy::new(&text).map(|policy| Recipe::adamw(1e-3).with_policy(policy)),
        false => CustomBase::new(&text).map(Recipe::from),
    };
    let recipe = match recipe {
        Ok(recipe) => recipe,
        Err(Error::Custom { line, column, message, .. }) => {
            let lines = text.split('\n').count();
            assert!((1..=lines).contains(&line) && column > 0 && !message.is_empty(), "{line}:{column}: {message}");
            return;
        }
        Err(other) => panic!("{other}"),
    };
    if recipe.validate().is_err() {
        return;
    }
    assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    let specs = [TensorSpec::new("w", [4100])];
    // Exact selection has many kernels to compile.
    let exact = Some(recipe.mgup()).filter(|recipe| text.len().is_multiple_of(8) && recipe.validate().is_ok());
    for recipe in [recipe].into_iter().chain(exact) {
        let mut optimizer = GpuOptimizer::new_blocking(&DEVICE.0, &DEVICE.1, &specs, recipe).unwrap();
        optimizer.write_grad("w", &[0.5; 4100]).unwrap();
        optimizer.step().unwrap();
        optimizer.read_param_blocking("w").unwrap();
        optimizer.destroy();
    }
});
