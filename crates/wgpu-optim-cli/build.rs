//! The versions that a report names: of the libraries, as Cargo.lock has them (`cargo install` heeds it with `--locked`), and of
//! the compiler.

use std::process::Command;

fn main() {
    // That of a package, or of the workspace.
    let found = ["Cargo.lock", "../../Cargo.lock"]
        .into_iter()
        .find_map(|path| Some((path, std::fs::read_to_string(path).ok()?.replace('\r', ""))));
    let (path, lock) = found.unwrap_or(("Cargo.toml", String::new()));
    println!("cargo::rerun-if-changed={path}");
    for name in ["wgpu", "naga"] {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let version = lock.split_once(&entry).and_then(|(_, rest)| rest.split_once('"')).map(|(v, _)| v);
        println!("cargo::rustc-env=LOCKED_{}={}", name.to_uppercase(), version.unwrap_or("unknown"));
    }
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = Command::new(rustc).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    println!("cargo::rustc-env=RUSTC_VERSION={}", String::from_utf8_lossy(&said).trim());
}
