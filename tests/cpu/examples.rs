//! Every public item of the library is in an example.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files and types that other crates of the workspace use, and no user.
const INTERNAL: [&str; 6] = ["src/kernel", "src/plan", "kind.rs", "newton_schulz.rs", "sampling.rs", "select.rs"];
const HIDDEN: [&str; 4] = ["impl BaseKind", "impl PolicyKind", "impl Matrix ", "impl Shape "];
/// What of these users have.
const PUBLIC: [&str; 2] = ["src/plan/cost.rs", "src/plan/program.rs"];

fn texts(folder: &str, ending: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, ending: &str, all: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => walk(&entry, ending, all),
                false if entry.to_string_lossy().ends_with(ending) => {
                    let text = std::fs::read_to_string(&entry).unwrap();
                    all.push((entry, text));
                }
                false => {}
            }
        }
    }
    let mut all = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), ending, &mut all);
    all
}

/// Words of the blocks of Rust code in Markdown or in comments.
fn words_of_examples(text: &str) -> BTreeSet<String> {
    let (mut words, mut is_rust) = (BTreeSet::new(), None);
    for line in text.lines().map(str::trim) {
        let line = line.strip_prefix("///").or(line.strip_prefix("//!")).unwrap_or(line).trim();
        match (line.strip_prefix("```"), is_rust) {
            (Some(language), None) => {
                is_rust = Some(["", "no_run"].contains(&language) || language.starts_with("rust"));
            }
            (Some(_), Some(_)) => is_rust = None,
            (None, Some(true)) => words.extend(words_of(line)),
            _ => {}
        }
    }
    words
}

fn words_of(code: &str) -> impl Iterator<Item = String> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned)
}

/// Names that a file makes public, but for those hidden from the docs.
fn public(text: &str) -> Vec<&str> {
    let (mut names, mut is_hidden, mut block) = (Vec::new(), false, "");
    for line in text.split("#[cfg(test)]\nmod tests").next().unwrap().lines() {
        let code = line.trim();
        if line.starts_with("impl") {
            block = line;
        }
        match code.strip_prefix("pub ") {
            _ if code.starts_with("#[doc(hidden)]") => is_hidden = true,
            _ if code.starts_with("#[") || code.starts_with("///") => {}
            Some(rest) if !is_hidden && !HIDDEN.iter().any(|hidden| block.starts_with(hidden)) => {
                let mut words = rest.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| *w != "async");
                let keyword = words.next().unwrap();
                names.extend(words.next().filter(|_| ["fn", "struct", "enum", "const", "trait"].contains(&keyword)));
            }
            _ => is_hidden = false,
        }
        if code.starts_with("pub ") {
            is_hidden = false;
        }
    }
    names
}

/// Fails where a public item is added without an example.
#[test]
fn every_public_item_is_in_an_example() {
    let mut words = BTreeSet::new();
    for (_, text) in texts("src", ".rs").into_iter().chain(texts("docs", ".md")) {
        words.extend(words_of_examples(&text));
    }
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    words.extend(words_of_examples(&std::fs::read_to_string(readme).unwrap()));
    texts("examples", ".rs").iter().for_each(|(_, text)| words.extend(words_of(text)));

    let (mut count, mut missing) = (0, Vec::new());
    for (path, text) in texts("src", ".rs") {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().to_string_lossy().replace('\\', "/");
        if INTERNAL.iter().any(|part| path.contains(part)) && !PUBLIC.contains(&&path[..]) {
            continue;
        }
        for name in public(&text) {
            count += 1;
            // A blocking twin is as the call that it blocks on.
            if !words.contains(name.strip_suffix("_blocking").unwrap_or(name)) {
                missing.push(format!("{name} of {path}"));
            }
        }
    }
    assert!(count > 180, "{count}");
    assert_eq!(missing, [""; 0]);
}

#[test]
fn an_item_without_an_example_is_noticed() {
    let text = "/// Doc.\n#[must_use]\npub fn shown() {\n}\n#[doc(hidden)]\n/// Doc.\npub fn hidden() {}\npub(crate) fn own() {}\n\
                impl BaseKind {\n    pub fn of() {}\n}\nimpl Base {\n    pub async fn waits() {}\n}\n";
    assert_eq!(public(text), ["shown", "waits"]);
    let words = words_of_examples("text shown\n```python\nwaits\n```\n/// ```no_run\n/// a.shown();\n/// ```\nmore");
    assert!(words.contains("shown") && !words.contains("waits") && !words.contains("more"));
}
