//! `wgpu-optim`: what GPUs there are, whether they compute correctly, and how fast.

#![forbid(unsafe_code)]

mod adapters;
mod bench;
mod check;
mod compile;
mod demo;
mod explain;
mod files;
mod new;
mod numbers;
mod recipes;
mod recording;
mod replay;
mod report;
mod session;
mod settings;
mod shapes;
mod sweep;
mod timer;
mod translate;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// What to do next, for whoever calls the tool without a command.
const GUIDE: &str = "\
wgpu-optim runs optimizer steps on any GPU through wgpu.

  wgpu-optim demo                  race optimizers on this GPU
  wgpu-optim adapters              list the GPUs, and what they lack
  wgpu-optim verify                check every optimizer against the CPU reference
  wgpu-optim bench                 measure nanoseconds per parameter
  wgpu-optim explain mgup-adamw    list every dispatch of a step
  wgpu-optim compile               build every pipeline, and run none
  wgpu-optim new my_optimizer      write a template of your own optimizer, in WGSL
  wgpu-optim check my_optimizer.wgsl    compile it for every platform, and run it next to AdamW

Every command has --help.";

const EXIT_CODES: &str = "\
Exit codes:
  0  The command succeeded.
  1  The command failed, `verify` found a recipe that differs from the CPU reference, or `check` found an error.
  2  The arguments are wrong.";

/// Optimizer steps on any GPU through wgpu: a demo, verification, replay, benchmarks.
///
/// Choose the adapter with WGPU_BACKEND (vulkan, metal, dx12, gl) and WGPU_ADAPTER_NAME (part of a name that
/// `wgpu-optim adapters` lists). WGPU_OPTIM_CACHE is a folder for compiled pipelines instead of the user's; empty for none.
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Adapters(adapters::Arguments),
    /// Run every recipe against the CPU reference on every adapter, or on the chosen one.
    ///
    /// Prints the largest error of each recipe over all sizes, and writes a report. Exits with 0 only if every recipe is
    /// within the tolerance.
    Verify(verify::Arguments),
    Replay(Box<replay::Arguments>),
    Bench(bench::Arguments),
    Explain(Box<explain::Arguments>),
    Compile(compile::Arguments),
    New(new::Arguments),
    Check(check::Arguments),
    /// Print a script that completes commands and options in your shell.
    ///
    /// For bash: wgpu-optim completions bash > ~/.local/share/bash-completion/completions/wgpu-optim
    Completions {
        /// The shell.
        shell: Shell,
    },
}

fn main() -> ExitCode {
    session::ensure();
    // Drivers that cannot be used complain at every start; RUST_LOG brings their words back.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,wgpu_hal=off")).init();
    let Some(command) = Arguments::parse().command else {
        println!("{GUIDE}");
        return ExitCode::SUCCESS;
    };
    let result = match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Adapters(arguments) => adapters::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Compile(arguments) => compile::run(&arguments),
        Command::New(arguments) => new::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "wgpu-optim", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
