//! `wgpu-optim-train`: trains a classifier of digits with Burn on wgpu, with the optimizer steps of
//! `wgpu-optim`.
//!
//! This file is the order of events: arguments, data, device, output directory, runs, report. What can be
//! refused is refused before the next thing is touched.

#![forbid(unsafe_code)]

mod args;
mod chart;
mod data;
mod model;
mod report;
mod train;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};

use args::Args;
use data::Dataset;
use report::Output;
use train::Options;
use wgpu_optim_burn::Gpu;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // Vulkan's validation layers (debug builds switch them on) are often older than wgpu, and then report
    // every shader.
    let log = env_logger::Env::default().default_filter_or("error,wgpu_hal=off");
    env_logger::Builder::from_env(log).init();
    let args = Args::parse();
    let optimizers = args.optimizers().unwrap_or_else(|message| {
        Args::command().error(clap::error::ErrorKind::ValueValidation, message).exit()
    });
    let data = match &args.data {
        Some(dir) => Dataset::from_dir(dir)?,
        None => Dataset::digits()?,
    };
    ensure!(
        args.batch <= data.train.len(),
        "--batch {} is more than the {} pictures of the training set",
        args.batch,
        data.train.len()
    );
    let options = Options {
        steps: args.steps,
        batch: args.batch,
        seed: args.seed,
        hidden: args.hidden.clone(),
        selection: args.selection,
    };

    let gpu = Gpu::open()?;
    println!("adapter  {}", gpu.adapter);
    println!("data     {}: {} to train, {} to test", data.name, data.train.len(), data.test.len());
    let output = Output::create(&args.out)?;

    let spinner = ProgressBar::new_spinner().with_message("compiling Burn's kernels");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    train::warm_up(&gpu, &data, &options, optimizers[0].recipe)?;
    spinner.finish_and_clear();

    let width = optimizers.iter().map(|o| o.name.len()).max().unwrap_or(0);
    let style = ProgressStyle::with_template(
        "{prefix} [{bar:36.cyan/blue}] {pos}/{len} steps, loss {msg}, {elapsed}",
    )?
    .progress_chars("━╸─");
    let mut runs = Vec::new();
    for optimizer in optimizers {
        let bar = ProgressBar::new(options.steps as u64)
            .with_style(style.clone())
            .with_prefix(format!("{:width$}", optimizer.name))
            .with_message("…");
        let run = train::train(&gpu, &data, &options, &optimizer.name, optimizer.recipe, &bar)?;
        bar.finish();
        output.checkpoint(&run)?;
        runs.push(run);
    }

    output.report(&gpu.adapter, &data.name, &runs)?;
    print!("\n{}", report::table(&runs));
    println!("\nresults in {}", args.out.display());
    Ok(())
}
