//! What `ARCHITECTURE.md` and its picture say is true: paths, names, kernels, bindings, numbers, and the layers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use wgpu_optim::matrix::Matmul;
use wgpu_optim::plan::layout::PlanLimits;
use wgpu_optim::{NonFinite, ParamGroups, Precision, Program, Recipe, Requirements, TensorSpec, verify, wgpu};

const PAGE: &str = include_str!("../../ARCHITECTURE.md");
const PICTURE: &str = include_str!("../../docs/architecture.svg");
const ENDINGS: [&str; 7] = [".rs", ".wgsl", ".md", ".py", ".svg", ".toml", ".ts"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a page has in backticks, with the text before each.
fn spans(page: &str) -> Vec<(&str, &str)> {
    let parts: Vec<_> = page.split('`').collect();
    parts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// `a/{b,c}.rs` → `a/b.rs`, `a/c.rs`.
fn expand(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (all, after) = rest.split_once('}').expect("a brace ends");
    all.split(',').flat_map(|one| expand(&format!("{before}{one}{after}"))).collect()
}

/// The paths of a page: in backticks, with a slash or a known ending.
fn paths(page: &str) -> Vec<String> {
    let is_path = |span: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-./{},".contains(c);
        span.chars().all(plain) && (span.contains('/') || ENDINGS.iter().any(|ending| span.ends_with(ending)))
    };
    // The published package has neither the other crates nor the scripts.
    let is_here = |path: &String| {
        root().join("crates").exists() || !["crates/", "scripts/"].iter().any(|other| path.starts_with(other))
    };
    let all = spans(page).into_iter().map(|(_, span)| span).filter(|span| is_path(span));
    all.flat_map(expand).filter(is_here).collect()
}

/// Where a path of the page leads: from the root, or to a WGSL file from `shaders/`.
fn found(path: &str) -> Option<PathBuf> {
    let kernel = root().join("shaders").join(format!("{path}.wgsl"));
    [root().join(path), kernel].into_iter().find(|path| path.exists())
}

fn missing(page: &str) -> Vec<String> {
    paths(page).into_iter().filter(|path| found(path).is_none()).collect()
}

/// What a page says lies in a file, as in "`name` in `path`", and does not.
fn misplaced(page: &str) -> Vec<String> {
    let spans = spans(page);
    let pairs = spans.windows(2).filter(|pair| pair[1].0 == " in ").map(|pair| (pair[0].1, pair[1].1));
    let is_there = |name: &str, path: &str| {
        let name = name.trim_end_matches('!').rsplit("::").next().unwrap();
        let text = found(path).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == name)
    };
    let known = pairs.filter(|(_, path)| !paths(&format!("`{path}`")).is_empty());
    known.filter(|(name, path)| !is_there(name, path)).map(|(name, path)| format!("{name} in {path}")).collect()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Folders of `src/`, and files and names of entry points, that a page does not have.
fn unmentioned(page: &str) -> Vec<String> {
    let known: BTreeSet<_> = paths(page).into_iter().collect();
    let names: BTreeSet<_> =
        spans(page).into_iter().flat_map(|(_, span)| span.split(|c: char| "/{},.".contains(c))).collect();
    let mut all = Vec::new();
    for file in files(&root().join("src")) {
        all.push((relative(file.parent().unwrap()) + "/", true));
    }
    for file in files(&root().join("shaders")) {
        let text = std::fs::read_to_string(&file).unwrap();
        if let Some((_, entry)) = text.split_once("@compute") {
            let name = entry.split_once("fn ").unwrap().1.split('(').next().unwrap();
            all.push((name.to_owned(), false));
            all.push((relative(&file), true));
        }
    }
    assert!(all.len() > 100, "{}", all.len());
    let is_known = |(what, is_path): &(String, bool)| {
        let kernel = what.strip_prefix("shaders/").and_then(|path| path.strip_suffix(".wgsl"));
        match is_path {
            true => what == "src/" || known.contains(what) || kernel.is_some_and(|path| known.contains(path)),
            false => names.contains(what.as_str()),
        }
    };
    all.into_iter().filter(|what| !is_known(what)).map(|(what, _)| what).collect()
}

/// Fails where a file or a function is renamed or moved, or an entry point is added, and the page is not.
#[test]
fn what_the_page_names_exists_and_nothing_is_left_out() {
    assert!(paths(PAGE).len() > 150, "{}", paths(PAGE).len());
    assert_eq!(missing(PAGE), [""; 0]);
    assert_eq!(misplaced(PAGE), [""; 0]);
    assert_eq!(unmentioned(PAGE), [""; 0]);
    assert!(PAGE.contains("](docs/architecture.svg)"));
}

#[test]
fn a_wrong_page_is_noticed() {
    let edited = |from: &str, to: &str| {
        assert!(PAGE.contains(from), "{from}");
        PAGE.replace(from, to)
    };
    assert_eq!(missing(&edited("{batches,work}.rs", "{batches,labor}.rs")), ["src/plan/labor.rs"]);
    assert_eq!(missing(&edited("select/{sample,", "select/{simple,")), ["select/simple"]);
    assert_eq!(missing(&edited("`scripts/structure.py`", "`structure.py`")), ["structure.py"]);
    let list = edited("`kinds!` in `src/recipe/base/mod.rs`", "`basis!` in `src/recipe/base/mod.rs`");
    assert_eq!(misplaced(&list), ["basis! in src/recipe/base/mod.rs"]);
    assert_eq!(unmentioned(&edited("`widen_masters`", "`widen`")), ["widen_masters"]);
    assert_eq!(
        unmentioned(&edited("telemetry/{observe,moved,", "telemetry/{observe,"))[..2],
        ["moved", "shaders/telemetry/moved.wgsl"]
    );
    assert!(!unmentioned(&edited("`src/gpu/`", "the folder")).is_empty());
}

/// MGUP-AdamW over a large tensor and a small one.
fn specs() -> [TensorSpec; 2] {
    [TensorSpec::new("large", [10_000_000]), TensorSpec::new("small", [100])]
}

fn program() -> Program {
    let limits = PlanLimits { buffer: 1 << 30, ..PlanLimits::LARGE };
    Program::new(&specs(), "mgup-adamw".parse::<Recipe>().unwrap(), limits, Matmul::Registers).unwrap()
}

/// The names that a dispatch binds, uniforms left out, with what it does with them.
fn bound(program: &Program, kernel: usize) -> impl Iterator<Item = (&str, &'static str)> {
    let all = program.kernels[kernel].bindings.iter().filter(|binding| !binding.is_uniform);
    all.map(|binding| match (binding.reads, binding.writes) {
        (true, true) => (binding.name.as_str(), "rw"),
        (_, writes) => (binding.name.as_str(), if writes { "w" } else { "r" }),
    })
}

/// The marks of the picture: dispatch, buffer, access.
fn marks(picture: &str) -> BTreeSet<String> {
    let ids = picture.split("<use id=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    ids.collect()
}

/// Fails where a kernel of the step binds another buffer, where a dispatch moves, and where a mark is drawn as another.
#[test]
fn the_picture_shows_what_the_program_binds() {
    let program = program();
    let mut expected = BTreeSet::new();
    let mut columns: Vec<&str> = Vec::new();
    for dispatch in program.step() {
        let (_, name) = program.kernels[dispatch.kernel].name.rsplit_once('/').unwrap();
        if !columns.contains(&name) {
            columns.push(name);
        }
        let own = bound(&program, dispatch.kernel).filter(|(buffer, _)| *buffer != "chunks");
        expected.extend(own.map(|(buffer, access)| format!("{name}.{buffer}.{access}")));
    }
    assert_eq!(marks(PICTURE), expected);
    assert_ne!(marks(&PICTURE.replace("settle.notes.r\"", "settle.notes.rw\"")), expected);
    let named = PICTURE.split("class=\"middle name\">").skip(1).map(|rest| rest.split('<').next().unwrap());
    assert_eq!(named.collect::<Vec<_>>(), columns, "dispatches from left to right");
    for mark in marks(PICTURE) {
        let kind = mark.rsplit('.').next().unwrap();
        assert!(PICTURE.contains(&format!("id=\"{mark}\" href=\"#{kind}\"")), "{mark} looks like another");
    }
    assert!(program.step().all(|dispatch| !dispatch.after_miss));

    // The tensor lies in two pages.
    let limits = PlanLimits { binding: 1 << 25, ..PlanLimits::LARGE };
    let spans = Program::new(&specs(), "mgup-adamw".parse::<Recipe>().unwrap(), limits, Matmul::Tiles).unwrap();
    let searching: Vec<_> = spans.step().filter(|dispatch| dispatch.after_miss).collect();
    assert_eq!(searching.len(), 2 * 7);
    assert!(searching.iter().all(|dispatch| spans.kernels[dispatch.kernel].name == "select/recount"));
    assert!(PAGE.contains("in 7 dispatches"));
}

/// Fails where the exact step of AdamW binds another buffer, and where the plan needs another number of bytes per parameter.
#[test]
fn the_room_within_eight_storage_buffers_is_as_the_page_says() {
    let program = program();
    let stream = program.kernels.iter().position(|kernel| kernel.name == "step/stream_exact").unwrap();
    let names: Vec<_> = bound(&program, stream).map(|(name, _)| name).collect();
    assert_eq!(names.len(), 8);
    assert!(PAGE.contains(&format!("binds all 8: `{}`.", names.join("`, `"))));

    // A tensor whose states share a binding takes half of it. Rounded down: a limit.
    let tenths = |value: f64| (10.0 * value).floor() / 10.0;
    let [webgpu, large] = [PlanLimits::WEBGPU, PlanLimits::LARGE].map(|limits| limits.binding as f64 / 8.0 / 1e6);
    let said = format!("{:.1} million coordinates with 128 MiB, {large:.0} million with 2 GiB", tenths(webgpu));
    assert!(PAGE.contains(&said), "the page does not say: {said}");
}

/// WebGPU guarantees 8 storage buffers: every base under every policy must do with them, with every setting.
#[test]
fn every_recipe_binds_at_most_eight_storage_buffers() {
    let specs = [TensorSpec::new("matrix", [90, 100]), TensorSpec::new("vector", [5001])];
    let seven = wgpu::Limits { max_storage_buffers_per_shader_stage: 7, ..wgpu::Limits::default() };
    let mut full = 0;
    for (name, recipe) in verify::recipes() {
        let plain = ParamGroups::from(recipe);
        let all = plain.clone().with_telemetry(1).with_max_grad_norm(1.0).with_non_finite(NonFinite::Skip);
        for groups in [plain, all.clone(), all.with_precision(Precision::F16).with_accumulation(2)] {
            let requirements = Requirements::new(&specs, groups).unwrap();
            requirements.check(&wgpu::Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            full += usize::from(requirements.check(&seven).is_err());
        }
    }
    assert!(full > 0, "the requirements count storage buffers");
}

/// The worked example shows the files as they are.
#[test]
fn the_example_of_an_optimizer_is_nadam() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let (page, rust) = (read("CONTRIBUTING.md"), read("src/recipe/base/nadam.rs"));
    assert!(page.contains(&format!("```wgsl\n{}```", read("shaders/base/nadam.wgsl"))));
    let row = page.split("```rust,ignore\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(rust.contains(row), "{row}");
    for (file, words) in
        [("src/recipe/base/mod.rs", "Nadam(nadam::NAdam)"), ("src/kernel/catalog.rs", "\"correction/nadam\"")]
    {
        assert!(page.contains(words) && read(file).contains(words), "{words}");
    }
}

/// Lines of a file, comments left out, that use a higher layer.
fn upward<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    let higher: &[&str] = match path.split('/').nth(1) {
        Some("recipe") => &["crate::kernel", "crate::plan", "crate::gpu", "wgpu::"],
        Some("kernel") => &["crate::plan", "crate::gpu", "wgpu::"],
        Some("plan") => &["crate::gpu", "wgpu::"],
        _ => &[],
    };
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| higher.iter().any(|floor| line.contains(floor))).collect()
}

/// Fails where a file uses a layer above its own.
#[test]
fn arrows_point_down() {
    for file in files(&root().join("src")) {
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(upward(&relative(&file), &text), [""; 0], "{}", file.display());
    }
    assert_eq!(upward("src/plan/work.rs", "use crate::gpu::record;\n"), ["use crate::gpu::record;"]);
    assert_eq!(upward("src/recipe/mod.rs", "// crate::gpu\nuse crate::error::Error;\n"), [""; 0]);
}
