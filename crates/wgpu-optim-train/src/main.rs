//! `wgpu-optim-train`: trains a classifier of digits with Burn on wgpu, with the optimizer steps of
//! `wgpu-optim`.
//!
//! This file is the order of events: arguments, data, device, output directory, runs, report. What can be
//! refused is refused before the next thing is touched.

#![forbid(unsafe_code)]

mod args;
mod model;
#[path = "../../wgpu-optim-cli/src/numbers.rs"]
mod numbers;
mod pictures;
#[path = "../../wgpu-optim-cli/src/recipes.rs"]
mod recipes;
mod report;
#[path = "../../wgpu-optim-cli/src/session.rs"]
mod session;
mod train;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, ensure};
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};

use args::Args;
use report::Output;
use train::{Files, Options, Progress};
use wgpu_optim_burn::Gpu;
use wgpu_optim_cache::PipelineCache;
use wgpu_optim_train::data::Dataset;
use wgpu_optim_train::interrupt::{self, INTERRUPTED};

fn main() -> ExitCode {
    session::ensure();
    match run() {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    // Vulkan's validation layers (debug builds switch them on) are often older than wgpu, and then report
    // every shader.
    let log = env_logger::Env::default().default_filter_or("error,wgpu_hal=off");
    env_logger::Builder::from_env(log).init();
    let args = Args::parse();
    let optimizers = args
        .optimizers()
        .unwrap_or_else(|message| Args::command().error(clap::error::ErrorKind::ValueValidation, message).exit());
    let schedule = args
        .lr_schedule()
        .unwrap_or_else(|message| Args::command().error(clap::error::ErrorKind::ValueValidation, message).exit());
    let data = match &args.data {
        Some(dir) => Dataset::from_dir(dir, args.split.as_deref())?,
        None => Dataset::digits()?,
    };
    ensure!(
        args.batch <= data.train.len(),
        "--batch {} is more than the {} pictures of the training set",
        args.batch,
        data.train.len()
    );
    let options = Options {
        data: data.identity(),
        steps: args.steps,
        batch: args.batch,
        seed: args.seed,
        hidden: args.hidden.clone(),
        selection: args.selection,
        schedule,
        clip: args.clip,
        accumulate: args.accumulate,
        precision: args.precision.into(),
        telemetry: args.telemetry,
        save_every: args.save_every,
    };
    let mut resumed = Vec::new();
    for optimizer in &optimizers {
        let checkpoint = report::checkpoint_file(&args.out, &optimizer.name);
        let progress = if args.resume { Progress::of(&checkpoint, &options, &optimizer.recipe)? } else { None };
        resumed.push((checkpoint, progress));
    }

    let gpu = Gpu::open()?;
    ensure!(
        gpu.device.supports_dtype(options.dtype()),
        "--precision {}: Burn cannot compute in {:?} on {}; use --precision f32, or another adapter",
        options.precision.name(),
        options.dtype(),
        gpu.adapter
    );
    println!("adapter  {}", gpu.adapter);
    println!("data     {}: {} to train, {} to test", data.name, data.train.len(), data.test.len());
    for (optimizer, (_, progress)) in optimizers.iter().zip(&resumed).filter(|_| args.resume) {
        match progress {
            Some(progress) => println!("resume   {} after {} steps", optimizer.name, progress.steps()),
            None => println!("resume   {}: no checkpoint, begins at step 0", optimizer.name),
        }
    }
    let output = Output::create(&args.out)?;

    let spinner = ProgressBar::new_spinner().with_message("compiling Burn's kernels");
    spinner.enable_steady_tick(std::time::Duration::from_millis(100));
    let cache = PipelineCache::open_default(&gpu.wgpu_device);
    train::warm_up(&gpu, &data, &options, optimizers[0].recipe, cache.as_ref())?;
    spinner.finish_and_clear();

    let width = optimizers.iter().map(|o| o.name.len()).max().unwrap_or(0);
    let style = ProgressStyle::with_template("{prefix} [{bar:36.cyan/blue}] {pos}/{len} steps, loss {msg}, {elapsed}")?
        .progress_chars("━╸─");
    // The first Ctrl-C ends the run after its step, with a checkpoint; the second ends the program.
    let stop = interrupt::on_ctrl_c()?;
    let mut runs = Vec::new();
    for (optimizer, (checkpoint, resumed)) in optimizers.into_iter().zip(resumed) {
        let bar = ProgressBar::new(options.steps as u64)
            .with_style(style.clone())
            .with_prefix(format!("{:width$}", optimizer.name))
            .with_message("…");
        let files = Files { checkpoint: &checkpoint, resumed, stop: &stop };
        let run = train::train(&gpu, &data, &options, &optimizer, files, cache.as_ref(), &bar)?;
        bar.finish();
        if let Some(cache) = &cache {
            cache.save_or_warn();
        }
        output.checkpoint(&run)?;
        runs.push(run);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }

    output.report(&gpu.adapter, &data.name, &runs)?;
    print!("\n{}", report::table(&runs));
    println!(
        "\nThe results are in {}; open loss.svg in it to see the curves.",
        std::path::absolute(&args.out)?.display()
    );
    if stop.load(Ordering::Relaxed) {
        println!("interrupted; the same command with --resume continues");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}
