//! `wgpu-optim new`: a text to begin with.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wgpu_optim::base::CustomBase;
use wgpu_optim::policy::CustomPolicy;

/// Write a commented template of a custom base, or of a custom policy, to NAME.wgsl.
///
/// An existing file is not replaced. docs/custom.md is the tutorial.
#[derive(clap::Args)]
pub struct Arguments {
    /// The optimizer's name: a to z, 0 to 9 and _, a letter first. It may have the path of a folder before it.
    name: PathBuf,
    /// Write a policy, which scales each coordinate's step by its score, instead of a base.
    #[arg(long)]
    policy: bool,
}

const BASE: &str = include_str!("templates/base.wgsl");
const POLICY: &str = include_str!("templates/policy.wgsl");

pub fn run(arguments: &Arguments) -> Result<()> {
    let name = arguments.name.file_name().and_then(|name| name.to_str()).context("the name has no letters")?;
    let name = name.strip_suffix(".wgsl").unwrap_or(name);
    let text = if arguments.policy { POLICY } else { BASE }.replace("my_optimizer", name);
    // The name becomes one of WGSL.
    if arguments.policy {
        CustomPolicy::new(&text).map(drop)?
    } else {
        CustomBase::new(&text).map(drop)?
    }
    let path = arguments.name.with_file_name(format!("{name}.wgsl"));
    create(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    let path = path.display();
    println!("{path} is a working template. Change it, then:");
    println!("  wgpu-optim check {path}");
    println!("  wgpu-optim bench --recipes adamw,{path}");
    Ok(())
}

fn create(path: &Path, text: &str) -> std::io::Result<()> {
    let created = OpenOptions::new().write(true).create_new(true).open(path);
    let exists = |error: Error| {
        if error.kind() == ErrorKind::AlreadyExists { Error::other("it is there already") } else { error }
    };
    created.map_err(exists)?.write_all(text.as_bytes())
}
