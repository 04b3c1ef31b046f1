//! `wgpu-optim new`: writes a template of a custom base or policy.

use std::fs::OpenOptions;
use std::io::{Error, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wgpu_optim::Recipe;
use wgpu_optim::base::CustomBase;
use wgpu_optim::policy::CustomPolicy;

/// Write a commented template of a custom base, or of a custom policy, to NAME.wgsl.
///
/// An existing file is not replaced. docs/custom.md is the tutorial.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the optimizer: up to 32 of a to z, 0 to 9 and _, a letter first. The path of a folder may precede it.
    name: PathBuf,
    /// Write a policy, which scales each coordinate's step by its score, instead of a base.
    #[arg(long)]
    policy: bool,
}

const BASE: &str = include_str!("templates/base.wgsl");
const POLICY: &str = include_str!("templates/policy.wgsl");

pub fn run(arguments: &Arguments) -> Result<()> {
    let name = arguments.name.file_name().and_then(|name| name.to_str()).context("the path does not end in a name")?;
    let name = name.strip_suffix(".wgsl").unwrap_or(name);
    let text = if arguments.policy { POLICY } else { BASE }.replace("my_optimizer", name);
    // Refuses names that are not allowed in WGSL.
    let recipe = Recipe::adamw(1e-3);
    let recipe = match arguments.policy {
        true => recipe.with_policy(CustomPolicy::new(&text)?),
        false => CustomBase::new(&text)?.into(),
    };
    recipe.validate()?;
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
        if error.kind() == ErrorKind::AlreadyExists { Error::other("it already exists") } else { error }
    };
    created.map_err(exists)?.write_all(text.as_bytes())
}
