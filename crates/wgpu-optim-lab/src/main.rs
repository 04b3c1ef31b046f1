//! `wgpu-optim-lab`: compares optimizers by a fixed protocol.

#![forbid(unsafe_code)]

#[path = "../../wgpu-optim-cli/src/session.rs"]
mod session;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use wgpu_optim_burn::Gpu;
use wgpu_optim_lab::config::Config;
use wgpu_optim_lab::report;
use wgpu_optim_lab::results::Results;
use wgpu_optim_lab::{Ended, Place, Sources, Study, ties};
use wgpu_optim_train::interrupt::{self, INTERRUPTED};

/// Compares optimizers by a fixed protocol: tuned learning rates, fresh seeds, paired differences with 95 % intervals.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes the runs of a study, then its report.
    Run(Run),
    /// Writes the report of a study again, and prints its tables.
    Report {
        /// The directory of the study.
        dir: PathBuf,
    },
    /// Prints what the papers claim, and what was found.
    Claims,
    /// Measures what MGUP's rule for equal scores does to embeddings and experts without gradients.
    Ties,
}

#[derive(Args)]
struct Run {
    /// A TOML file, or a preset: quick (nothing is tuned), cpu20 (tuned rates, for two cores), gpu10 (larger models, for a GPU), ratios (τ),
    /// bases (Lion, Muon, AdaGO and NAMO), others (classification and regression), plane (two dimensions), precision
    /// (bf16 and 8-bit states), eight-bit (8-bit states, with more seeds), small-steps (bf16 without masters at small rates) or fine-tuning.
    study: String,
    /// The directory of the results. Default: `lab/` and the name of the study.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Pictures: IDX files as MNIST ships them, or the binary batches of CIFAR-10. Default: Fashion-MNIST of the Debian package
    /// dataset-fashion-mnist, or else the digits of the program.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A text for language models. Default: a novel by Jane Austen.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Sentences and their classes for fine-tuning: a CSV file with the columns `text` and `label`.
    #[arg(long, value_name = "FILE")]
    sentences: Option<PathBuf>,
    /// Where models learn. Default: on the adapter if it is a GPU, otherwise on the host, where Burn is faster.
    #[arg(long, value_enum, value_name = "PLACE")]
    model_on: Option<Place>,
    /// No run begins after so much time, as in 20m or 1h30m.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    budget: Option<Duration>,
    /// Continue a study that was interrupted or whose budget ended.
    #[arg(long)]
    resume: bool,
}

fn main() -> ExitCode {
    session::ensure();
    // Vulkan's validation layers (debug builds switch them on) are often older than wgpu, and then report every shader.
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,wgpu_hal=off")).init();
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(run) => study(run),
        Command::Report { dir } => {
            let results = Results::read(&dir)?;
            report::write(&results, &dir)?;
            print!("{}", report::text(&results));
            Ok(ExitCode::SUCCESS)
        }
        Command::Claims => {
            print!("{}", include_str!("../../../docs/claims.md"));
            Ok(ExitCode::SUCCESS)
        }
        Command::Ties => ties(),
    }
}

fn ties() -> Result<ExitCode> {
    let gpu = Gpu::open()?;
    println!("adapter  {}\n", gpu.adapter);
    println!("How far coordinates move in {} steps, in learning rates, by their place in their tensor", ties::STEPS);
    for layout in &ties::LAYOUTS {
        println!("\n{}\n\n{}", layout.name, ties::table(&gpu, layout)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn study(run: Run) -> Result<ExitCode> {
    let config = Config::open(&run.study)?;
    let out = run.out.unwrap_or_else(|| PathBuf::from("lab").join(&config.name));
    // The first Ctrl-C ends the study after its step and keeps the finished runs; the second ends the program.
    let stop = interrupt::on_ctrl_c()?;
    let sources = Sources { pictures: run.data, text: run.text, sentences: run.sentences };
    let place = run.model_on;
    let study = Study { config, sources, place, out, budget: run.budget, resume: run.resume, stop: &stop };
    let ended = study.run(Vec::new())?;
    print!("{}", report::text(&Results::read(&study.out)?));
    let out = study.out.display();
    println!("\nThe report is {out}/report.html.");
    let more = format!("Continue with `wgpu-optim-lab run {} --out {out} --resume`.", run.study);
    Ok(match ended {
        Ended::Complete => ExitCode::SUCCESS,
        Ended::Budget => {
            println!("The time was over before all runs were made. {more}");
            ExitCode::SUCCESS
        }
        Ended::Stopped => {
            println!("The study was stopped; the finished runs are kept. {more}");
            INTERRUPTED.into()
        }
    })
}
