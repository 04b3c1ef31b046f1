//! Writes the JavaScript and TypeScript side of a module that was compiled to wasm.
//!
//! It replaces the `wasm-bindgen` command, whose version must equal that of the library: Cargo.lock ensures this.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use wasm_bindgen_cli_support::Bindgen;

#[derive(Parser)]
#[command(about = "Writes the JavaScript and TypeScript side of a module that was compiled to wasm")]
struct Args {
    /// The .wasm file that cargo built.
    module: PathBuf,
    /// A folder for NAME.js, NAME.d.ts and NAME_bg.wasm.
    #[arg(long)]
    out: PathBuf,
    /// What the files are called.
    #[arg(long, default_value = "wgpu_optim")]
    name: String,
}

fn main() -> Result<()> {
    let Args { module, out, name } = Args::parse();
    let what = format!("module {}", module.display());
    Bindgen::new()
        .input_path(module)
        .out_name(&name)
        .web(true)?
        .omit_default_module_path(false)
        .typescript(true)
        .generate(out)
        .context(what)
}
