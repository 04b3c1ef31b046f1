//! Joins WGSL files into the text of a kernel.
//!
//! The first lines of a file state what it takes from others, in the syntax of WESL: `import package::lib::keys::{key, ZERO_KEY};`. The path
//! names a module: a file, or a slot that the caller fills. The linker checks every import, takes each module once, and keeps what the
//! entry point reaches. Branches that need a constant which is false are left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

/// A WGSL file.
pub(crate) struct File {
    /// Its path in `shaders/`, for messages.
    pub name: String,
    pub text: Cow<'static, str>,
}

/// A kernel, ready to become a pipeline on any host of WebGPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kernel {
    /// The file in `shaders/` that holds its entry point, without its ending.
    pub name: String,
    /// Its WGSL.
    pub source: String,
    /// Its entry point.
    pub entry_point: String,
    /// Invocations of a workgroup.
    pub lanes: u32,
    /// Its pipeline constants.
    pub constants: BTreeMap<String, f64>,
    /// The buffers that it binds.
    pub bindings: Vec<Binding>,
}

/// A buffer that a kernel binds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Binding {
    /// Its `@group`.
    pub group: u32,
    /// Its `@binding`.
    pub binding: u32,
    /// The variable's name, which says what is bound.
    pub name: String,
    /// Whether it is a uniform, not storage.
    pub is_uniform: bool,
    /// Whether it is declared as storage that the kernel cannot write. Other storage is declared `read_write`.
    pub is_read_only: bool,
    /// Whether the kernel reads it.
    pub reads: bool,
    /// Whether the kernel writes it.
    pub writes: bool,
}

/// Links the kernel whose entry point is in the file `name`; `find` gives a module's file, `constant` the value of a pipeline constant.
///
/// # Errors
/// A module or a name that does not exist, or a name that two modules of the kernel define.
pub(crate) fn link(
    name: &str,
    find: &dyn Fn(&str) -> Option<File>,
    constant: &dyn Fn(&str) -> bool,
) -> Result<Kernel, String> {
    let mut linker = Linker { find, modules: HashMap::new(), items: Vec::new(), names: HashMap::new() };
    linker.take(&format!("package::{}", name.replace('/', "::")), "")?;
    linker.exclude(constant);
    let entry = linker.items.iter().rposition(|item| item.lanes.is_some());
    let reached = linker.reach(entry.ok_or(format!("`{name}` has no entry point"))?);
    let kept: Vec<&Item> = reached.iter().map(|&at| &linker.items[at]).collect();
    let entry = kept.iter().rfind(|item| item.lanes.is_some()).expect("it reaches itself");
    // Directives come before everything else.
    let directives: BTreeSet<&str> = kept.iter().map(|item| item.directives.as_str()).collect();
    let texts = kept.iter().flat_map(|item| [item.text.as_str(), "\n"]);
    let mut bindings: Vec<_> = kept.iter().filter_map(|item| bound(item, &kept)).collect();
    bindings.sort_unstable();
    let overrides = kept.iter().filter(|item| item.keyword == "override").map(|item| item.name.clone());
    Ok(Kernel {
        name: name.to_owned(),
        source: directives.into_iter().chain(texts).collect(),
        entry_point: entry.name.clone(),
        lanes: entry.lanes.unwrap_or_default(),
        constants: overrides.map(|name| (name.clone(), f64::from(u8::from(constant(&name))))).collect(),
        bindings,
    })
}

/// A definition of a module.
pub(crate) struct Item {
    pub name: String,
    /// `fn`, `struct`, `const`, `override`, `alias` or `var`.
    pub keyword: String,
    /// Its text, with the comments before it.
    pub text: String,
    /// Where it begins.
    pub line: usize,
    /// Invocations of a workgroup, of an entry point.
    pub lanes: Option<u32>,
    /// The lines of its file that enable something.
    directives: String,
}

struct Linker<'a> {
    find: &'a dyn Fn(&str) -> Option<File>,
    /// What each module defines.
    modules: HashMap<String, BTreeSet<String>>,
    items: Vec<Item>,
    /// The file that defines each name, and the index of its item.
    names: HashMap<String, (String, usize)>,
}

impl Linker<'_> {
    /// Adds a module, which is imported at this place, and what it imports.
    fn take(&mut self, path: &str, place: &str) -> Result<(), String> {
        if self.modules.contains_key(path) {
            return Ok(());
        }
        let file = (self.find)(path).ok_or_else(|| format!("{place}there is no module `{path}`"))?;
        let place = |line: usize| format!("shaders/{}:{line}: ", file.name);
        // A module that imports itself by a detour is taken once, too.
        let items = items(&file.text);
        self.modules.insert(path.to_owned(), items.iter().map(|item| item.name.clone()).collect());
        for (line, import) in imports(&file.text) {
            let wrong = || format!("{}an import is `import package::a::{{b, c::{{d}}}};` on one line", place(line));
            for (module, name) in import.ok_or_else(wrong)? {
                self.take(&module, &place(line))?;
                if !self.modules[&module].contains(&name) {
                    return Err(format!("{}`{module}` does not define `{name}`", place(line)));
                }
            }
        }
        for item in items {
            let known = self.names.insert(item.name.clone(), (file.name.clone(), self.items.len()));
            if let Some((other, _)) = known {
                return Err(format!("{}`{}` is defined in shaders/{other} as well", place(item.line), item.name));
            }
            self.items.push(item);
        }
        Ok(())
    }

    /// Leaves out what constants that are false exclude, which drivers would compile.
    fn exclude(&mut self, constant: &dyn Fn(&str) -> bool) {
        let constants = self.items.iter().filter(|item| item.keyword == "override");
        let off: Vec<String> = constants.map(|item| item.name.clone()).filter(|name| !constant(name)).collect();
        let functions = self.items.iter_mut().filter(|item| item.keyword == "fn");
        functions.for_each(|item| item.text = without(&off, &item.text));
    }

    /// The items that one reaches, in the order of the text.
    fn reach(&self, from: usize) -> BTreeSet<usize> {
        let (mut reached, mut left) = (BTreeSet::from([from]), vec![from]);
        while let Some(at) = left.pop() {
            let Item { keyword, text, .. } = &self.items[at];
            // Members are not what they are called.
            let member = |line: &str| if keyword == "struct" { line.find(": ").unwrap_or(0) } else { 0 };
            let used = text.lines().flat_map(|line| names(&line[member(line)..]));
            let items = used.filter_map(|name| self.names.get(name)).map(|(_, item)| *item);
            left.extend(items.filter(|&item| reached.insert(item)));
        }
        reached
    }
}

/// The imports of a file, by line: modules and what is taken from them, or `None` for what is not an import.
pub(crate) fn imports(text: &str) -> impl Iterator<Item = (usize, Option<Vec<(String, String)>>)> {
    (1..).zip(text.lines()).filter_map(|(line, text)| {
        let (import, mut taken) = (text.strip_prefix("import ")?, Vec::new());
        let rest = import_tree("", import, &mut taken);
        Some((line, (rest == Some(";")).then_some(taken)))
    })
}

/// Reads `a::b::name` or `a::{b::name, c::{…}}` under a path, and returns what follows.
fn import_tree<'a>(path: &str, text: &'a str, taken: &mut Vec<(String, String)>) -> Option<&'a str> {
    let (name, rest) = text.split_at(text.find(|c: char| !is_of_word(c))?);
    let Some(rest) = rest.strip_prefix("::") else {
        taken.push((path.to_owned(), name.to_owned()));
        return (!path.is_empty() && !name.is_empty()).then_some(rest);
    };
    let path = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") };
    let Some(mut rest) = rest.strip_prefix('{') else { return import_tree(&path, rest, taken) };
    loop {
        rest = import_tree(&path, rest, taken)?;
        match rest.strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => return rest.strip_prefix('}'),
        }
    }
}

/// The definitions of a file. What comes before the first one is about the file.
pub(crate) fn items(text: &str) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let (mut before, mut lanes, mut directives, mut inside) = (String::new(), None, String::new(), false);
    for (line, text) in (1..).zip(text.split_inclusive('\n')) {
        let code = text.trim_end();
        if inside {
            items.last_mut().expect("it is inside one").text += text;
            inside = code != "}" && code != ");";
        } else if code.starts_with("enable ") {
            directives += text;
        } else if code.starts_with("import ") || code.is_empty() {
            // A comment that an empty line follows is about the file.
            before.clear();
        } else if let Some((keyword, name)) = defined(code) {
            let text = std::mem::take(&mut before) + text;
            inside = code.ends_with(['{', '(']);
            let (name, keyword, directives) = (name.to_owned(), keyword.to_owned(), directives.clone());
            items.push(Item { name, keyword, text, line, lanes: lanes.take(), directives });
        } else {
            if let Some(size) = code.strip_prefix("@compute @workgroup_size(") {
                lanes = size.trim_end_matches(')').parse().ok();
            }
            before += text;
        }
    }
    items
}

/// A function without the branches of `if` that need one of the constants.
fn without(constants: &[String], text: &str) -> String {
    let (mut kept, mut until) = (String::new(), None);
    for line in text.split_inclusive('\n') {
        let code = line.trim();
        let indent = &line[..line.len() - line.trim_start().len()];
        let condition = code.strip_prefix("if ").and_then(|rest| Some(rest.split_once(" {")?.0)).unwrap_or_default();
        match until {
            Some(outer) if indent == outer => {
                until = None;
                kept += code.strip_prefix("} else ").unwrap_or_default();
            }
            Some(_) => {}
            None if condition.split(" && ").any(|term| constants.iter().any(|name| name == term)) => {
                until = Some(indent).filter(|_| !code.ends_with('}'));
            }
            None => kept += line,
        }
    }
    kept
}

/// The keyword and the name of a definition that begins on a line.
fn defined(line: &str) -> Option<(&str, &str)> {
    let at = line.find("var<").filter(|_| line.starts_with("@group")).unwrap_or(0);
    let (keyword, rest) = line[at..].split_once(|c: char| !c.is_ascii_alphanumeric())?;
    let rest = if line[at + keyword.len()..].starts_with('<') { rest.split_once("> ")?.1 } else { rest };
    let is_known = ["fn", "struct", "const", "override", "alias", "var"].contains(&keyword);
    is_known.then(|| (keyword, rest.split(|c| !is_of_word(c)).next().unwrap_or_default()))
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The identifiers of a text, without those in comments and those that are members of something.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter_map(|line| line.split("//").next());
    let paths = code.flat_map(|code| code.split(|c| !is_of_word(c) && c != '.'));
    let all = paths.filter_map(|path| path.split('.').next());
    all.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// The buffer that an item declares, and what the items do with it.
fn bound(item: &Item, all: &[&Item]) -> Option<Binding> {
    let name = &item.name;
    let (_, declared) = item.text.split_once("@group(")?;
    let (group, rest) = declared.split_once(") @binding(")?;
    let (binding, rest) = rest.split_once(") var<")?;
    let (group, binding, is_uniform) = (group.parse().ok()?, binding.parse().ok()?, rest.starts_with("uniform"));
    let is_read_only = rest.starts_with("storage, read>");
    let mut found =
        Binding { group, binding, name: name.clone(), is_uniform, is_read_only, reads: false, writes: false };
    let lines = all.iter().filter(|other| other.keyword == "fn").flat_map(|other| other.text.lines());
    let statements = lines.flat_map(|line| line.split("//").next().unwrap_or_default().split(['{', '}', ';']));
    let about = statements.filter(|code| code.contains(name.as_str()) && names(code).any(|word| word == name));
    for code in about.map(str::trim) {
        let assigned = code.strip_prefix(name.as_str()).filter(|rest| rest.starts_with(['[', '.']));
        let assigned = assigned.and_then(|rest| rest.split_once(" = ").or_else(|| rest.split_once("= ")));
        let atomic = code.find(&format!("(&{name}")).map(|at| &code[..at]);
        let stored = atomic.is_some_and(|before| before.ends_with("atomicStore"));
        found.writes |= assigned.is_some() || atomic.is_some_and(|before| !before.ends_with("atomicLoad"));
        found.reads |= !stored
            && assigned.is_none_or(|(to, value)| {
                to.ends_with(['+', '-', '*', '|', '^']) || names(value).any(|word| word == name)
            });
    }
    Some(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn linked(files: &[(&'static str, &'static str)]) -> Result<Kernel, String> {
        let find = |path: &str| {
            let (name, text) = files.iter().find(|(name, _)| path == format!("package::{name}"))?;
            Some(File { name: format!("{name}.wgsl"), text: (*text).into() })
        };
        link("main", &find, &|_| true)
    }

    const MAIN: &str = "// What it computes.\n\nimport package::lib::{double, data};\n\n@compute @workgroup_size(32)\nfn main() {\n    \
                        data[0] = double(data[0]);\n}\n";
    const LIB: &str = "enable f16;\n\n// About the file.\n\n@group(1) @binding(2) var<storage, read_write> data: array<u32>;\n\
                       @group(0) @binding(1) var<uniform> idle: u32;\noverride FAST: bool = false;\n\n// Twice x.\nfn double(x: u32) -> u32 \
                       {\n    return select(2u, 2u, FAST) * x;\n}\n";

    #[test]
    fn a_kernel_has_what_its_entry_point_reaches() {
        let kernel = linked(&[("main", MAIN), ("lib", LIB)]).unwrap();
        assert_eq!((kernel.entry_point.as_str(), kernel.lanes), ("main", 32));
        assert!(kernel.source.starts_with("enable f16;\n"));
        assert!(kernel.source.contains("// Twice x.\nfn double") && !kernel.source.contains("idle"));
        assert_eq!(kernel.constants, BTreeMap::from([("FAST".to_owned(), 1.0)]));
        let [binding] = &kernel.bindings[..] else { panic!("{:?}", kernel.bindings) };
        assert_eq!((binding.group, binding.binding, binding.name.as_str()), (1, 2, "data"));
        assert!(binding.reads && binding.writes && !binding.is_uniform && !binding.is_read_only);
    }

    #[test]
    fn what_a_constant_excludes_is_left_out() {
        let text = "fn f() {\n    if A { return; }\n    if b && A {\n        if c {\n            d();\n        }\n    } else {\n        e();\n    }\n    \
                    if !A { g(); }\n}\n";
        assert_eq!(without(&["A".to_owned()], text), "fn f() {\n{        e();\n    }\n    if !A { g(); }\n}\n");
        assert_eq!(without(&["AA".to_owned()], text), text);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        let refused = |files: &[(&'static str, &'static str)]| linked(files).unwrap_err();
        assert_eq!(refused(&[("main", MAIN)]), "shaders/main.wgsl:3: there is no module `package::lib`");
        let other = "fn double() {\n}\n";
        let expected = "shaders/main.wgsl:3: `package::lib` does not define `data`";
        assert_eq!(refused(&[("main", MAIN), ("lib", other)]), expected);
        let again = "import package::lib::data;\n\nfn main() {\n}\n\nfn double() {\n}\n";
        let main = "import package::again::double;\n\n@compute @workgroup_size(1)\nfn entry() {\n    double();\n}\n";
        let expected = "shaders/again.wgsl:6: `double` is defined in shaders/lib.wgsl as well";
        assert_eq!(refused(&[("main", main), ("again", again), ("lib", LIB)]), expected);
        let several = "import package::lib::{\n    double,\n};\n";
        assert!(refused(&[("main", several), ("lib", LIB)]).starts_with("shaders/main.wgsl:1: an import is"));
    }

    #[test]
    fn a_name_without_an_import_and_an_import_without_a_use_are_found() {
        let known = BTreeMap::from([("double".to_owned(), BTreeSet::from(["lib".to_owned()]))]);
        let of = |text: &'static str| unstated(&File { name: "a.wgsl".into(), text: text.into() }, &known);
        assert_eq!(of("// A.\n\nfn f() {\n    double(1u);\n}\n")[0].line, 4);
        assert!(of("import package::lib::double;\n\nfn f() {\n}\n")[0].message.contains("not used"));
        assert!(of("import package::lib::double;\n\nfn f() {\n    double(1u);\n}\n").is_empty());
        // A variable, a parameter and a member of that name are something else.
        assert!(of("fn f(double: u32) {\n    let x = double + s.double;\n}\n").is_empty());
    }

    /// The identifiers of a text, those in comments left out.
    fn words(text: &str) -> impl Iterator<Item = &str> {
        let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
        let all = code.flat_map(|code| code.split(|c| !is_of_word(c)));
        all.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
    }

    /// What is wrong, and where.
    pub(crate) struct Wrong {
        pub file: String,
        pub line: usize,
        pub message: String,
    }

    /// What a file uses of other modules without an import, or imports and does not use, for every name that a module defines.
    pub(crate) fn unstated(file: &File, known: &BTreeMap<String, BTreeSet<String>>) -> Vec<Wrong> {
        let failed = |line: usize, message: String| Wrong { file: file.name.clone(), line, message };
        let own: BTreeSet<String> = items(&file.text).into_iter().map(|item| item.name).collect();
        let body: String = file
            .text
            .lines()
            .map(|line| if line.starts_with("import ") { "\n" } else { line }.to_owned() + "\n")
            .collect();
        let mut imported = BTreeSet::new();
        let mut wrong = Vec::new();
        let imports = imports(&file.text).flat_map(|(line, all)| all.into_iter().flatten().map(move |one| (line, one)));
        for (line, (module, name)) in imports {
            if !words(&body).any(|word| word == name) {
                wrong.push(failed(line, format!("`{name}` of `{module}` is imported and not used")));
            }
            imported.insert(name);
        }
        // Names that a line introduces, as a variable, a parameter or a member, are its own.
        let local: BTreeSet<&str> = body
            .lines()
            .flat_map(|line| {
                let after =
                    line.split("let ").skip(1).chain(line.split("var ").skip(1)).filter_map(|rest| words(rest).next());
                let typed = line.match_indices(": ").filter_map(|(at, _)| words(&line[..at]).last());
                after.chain(typed).collect::<Vec<_>>()
            })
            .collect();
        if let Some(name) = imported.iter().find(|name| local.contains(name.as_str())) {
            wrong.push(failed(1, format!("`{name}` is imported, and a line introduces it again")));
        }
        for (at, line) in body.lines().enumerate() {
            for word in words(line) {
                let is_call = line.contains(&format!("{word}("));
                let is_member = line.contains(&format!(".{word}"));
                let elsewhere = known.contains_key(word) && !own.contains(word) && !imported.contains(word);
                if elsewhere && !is_member && (is_call || !local.contains(word)) {
                    wrong.push(failed(
                        at + 1,
                        format!("`{word}` is used and not imported from any of {:?}", known[word]),
                    ));
                }
            }
        }
        wrong
    }
}
