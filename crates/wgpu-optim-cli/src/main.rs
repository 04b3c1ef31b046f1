//! `wgpu-optim`: what GPUs there are, whether they compute correctly, and how fast.

#![forbid(unsafe_code)]

mod adapters;
mod bench;
mod explain;
mod files;
mod numbers;
mod recipes;
mod recording;
mod replay;
mod report;
mod session;
mod settings;
mod shapes;
mod sweep;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Optimizer steps on any GPU through wgpu: adapters, verification, replay, benchmarks.
///
/// The adapter is chosen the way wgpu programs do it: WGPU_BACKEND (vulkan, metal, dx12, gl) and WGPU_ADAPTER_NAME (part
/// of a name that `wgpu-optim adapters` lists).
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the adapters, and whether they have what the optimizers need.
    Adapters,
    /// Run every recipe against the CPU reference on every adapter, or on the chosen one.
    ///
    /// Prints a row for each recipe with the largest error over all sizes, and writes a report. Exits with 0 only if every row
    /// holds.
    Verify(verify::Arguments),
    Replay(replay::Arguments),
    Bench(bench::Arguments),
    Explain(explain::Arguments),
}

fn main() -> ExitCode {
    session::ensure();
    // Drivers that cannot be used complain at every start; RUST_LOG brings their words back.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,wgpu_hal=off")).init();
    let result = match Arguments::parse().command {
        Command::Adapters => adapters::run(),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
