//! A study from its first run to its last.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use wgpu_optim::Precision;
use wgpu_optim_burn::Gpu;
use wgpu_optim_cache::PipelineCache;

use crate::config::Config;
use crate::learner::Place;
use crate::open::open;
use crate::protocol::{self, Wanted};
use crate::results::{Machine, Results, Stage};
use crate::task::Sources;
use crate::train::{Bench, Plan, Trains};
use crate::{files, report};

/// A study, and where its results go.
pub struct Study<'a> {
    /// What is compared.
    pub config: Config,
    /// Where data of tasks lie.
    pub sources: Sources,
    /// Where models learn. Default: [`Place::of`] the adapter.
    pub place: Option<Place>,
    /// The directory of the results, which is made.
    pub out: PathBuf,
    /// No run begins after so much time.
    pub budget: Option<Duration>,
    /// Whether the runs in the directory count. Otherwise a directory with results is refused.
    pub resume: bool,
    /// Set when the study is to end after the current step. Finished runs are kept.
    pub stop: &'a AtomicBool,
}

/// How a study ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All runs are there.
    Complete,
    /// The time was over.
    Budget,
    /// It was stopped.
    Stopped,
}

impl Study<'_> {
    /// Makes the runs that are missing, and writes the results and their report after each of them.
    ///
    /// `own` are the tasks that the program brings itself, by name.
    ///
    /// # Errors
    /// If data cannot be read, the directory cannot be written, its results are of another study, or the device fails.
    pub fn run(&self, own: Vec<(&str, Box<dyn Trains>)>) -> Result<Ended> {
        let mut own: std::collections::HashMap<_, _> = own.into_iter().collect();
        let tasks: Vec<(String, Box<dyn Trains>)> = self
            .config
            .tasks
            .iter()
            .map(|task| {
                let opened = own.remove(task.name()).map_or_else(|| open(task, &self.sources), Ok)?;
                Ok((task.name().to_owned(), opened))
            })
            .collect::<Result<_>>()?;
        std::fs::create_dir_all(&self.out)
            .and_then(|()| files::new_in(&self.out)?.close())
            .with_context(|| format!("cannot write into the directory {}", self.out.display()))?;
        let before = self.before()?;
        let gpu = Gpu::open()?;
        let machine = Machine {
            adapter: gpu.adapter.clone(),
            model: self.place.unwrap_or_else(|| Place::of(&gpu)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            burn: burn_version().to_owned(),
            autotune: cfg!(feature = "autotune"),
        };
        let half = self.config.optimizers.iter().find(|own| own.precision != Precision::F32);
        if let (Some(own), Place::Adapter) = (half, machine.model) {
            bail!("{}: models on the adapter are f32; use --model-on host for {}", own.name, own.precision);
        }
        let data = tasks.iter().map(|(_, task)| task.data()).collect();
        let mut results = Results::new(self.config.clone(), data, machine);
        if let Some(before) = before {
            self.check(&before, &results)?;
            results.runs = before.runs;
        }
        println!("adapter  {}", gpu.adapter);
        for ((name, _), data) in tasks.iter().zip(&results.data) {
            println!("task     {name}: {data}");
        }
        let cache = PipelineCache::open_default(&gpu.wgpu_device);
        let ended = self.runs(&gpu, cache.as_ref(), &tasks, &mut results)?;
        if let Some(cache) = &cache {
            cache.save_or_warn();
        }
        results.write(&self.out)?;
        report::write(&results, &self.out)?;
        Ok(ended)
    }

    /// The results that are there.
    fn before(&self) -> Result<Option<Results>> {
        let path = Results::path(&self.out);
        if !path.exists() {
            return Ok(None);
        }
        ensure!(
            self.resume,
            "{} has results already; continue with --resume, or choose another --out",
            self.out.display()
        );
        Results::read(&self.out).map(Some)
    }

    /// Refuses to add runs to those of another study, on other data, or from another machine.
    fn check(&self, before: &Results, now: &Results) -> Result<()> {
        let path = Results::path(&self.out);
        ensure!(before.study == now.study, "{} is of another study; choose another --out", path.display());
        ensure!(before.data == now.data, "{} is of other data: {}", path.display(), before.data.join("; "));
        ensure!(
            before.machine == now.machine,
            "{} was made in another way, and runs of different machines are not comparable: {}",
            path.display(),
            before.machine
        );
        Ok(())
    }

    fn runs(
        &self,
        gpu: &Gpu,
        cache: Option<&PipelineCache>,
        tasks: &[(String, Box<dyn Trains>)],
        results: &mut Results,
    ) -> Result<Ended> {
        let begun = Instant::now();
        let progress = Progress::new(results)?;
        loop {
            let Some(next) = self.next(results) else { return Ok(Ended::Complete) };
            if self.budget.is_some_and(|budget| begun.elapsed() >= budget) {
                return Ok(Ended::Budget);
            }
            let (_, task) = tasks.iter().find(|(name, _)| *name == next.task).context("a run of an unknown task")?;
            let plan = self.plan(next)?;
            progress.begin(&plan, results);
            let bench = Bench { gpu, place: results.machine.model, cache, stop: self.stop, bar: &progress.steps };
            let context = || {
                format!(
                    "{} on {}, rate {}, seed {}",
                    plan.wanted.optimizer, plan.wanted.task, plan.wanted.rate, plan.wanted.seed
                )
            };
            let Some(run) = task.train(&bench, &plan).with_context(context)? else { return Ok(Ended::Stopped) };
            progress.end(&run);
            results.runs.push(run);
            results.write(&self.out)?;
            if self.stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// The next run, of the tasks in turn, so that a budget ends all of them at about the same place.
    fn next(&self, results: &Results) -> Option<Wanted> {
        let done = |wanted: &Wanted| results.runs.iter().filter(|run| run.task == wanted.task).count();
        let mut wanted = protocol::wanted(results);
        let first = wanted.iter().enumerate().min_by_key(|(at, next)| (done(next), *at)).map(|(at, _)| at)?;
        Some(wanted.swap_remove(first))
    }

    fn plan(&self, wanted: Wanted) -> Result<Plan> {
        let optimizer = self.config.optimizer(&wanted.optimizer).context("a run of an unknown optimizer")?;
        let steps = self.config.task(&wanted.task).context("a run of an unknown task")?.steps();
        let groups = optimizer.groups(wanted.rate)?;
        let Config { warmup, telemetry, max_grad_norm, .. } = self.config;
        Ok(Plan { wanted, groups, steps, warmup, telemetry, max_grad_norm })
    }
}

/// The version of Burn that the program is built with.
fn burn_version() -> &'static str {
    let locked = include_str!("../../../Cargo.lock").split_once("name = \"burn\"\nversion = \"");
    locked.and_then(|(_, rest)| rest.split('"').next()).unwrap_or("unknown")
}

/// What is shown while runs are made: bars on a terminal, and otherwise a line per run.
struct Progress {
    runs: ProgressBar,
    steps: ProgressBar,
    is_terminal: bool,
}

impl Progress {
    fn new(results: &Results) -> Result<Self> {
        let all = MultiProgress::new();
        let bar = |template: &str| -> Result<ProgressBar> {
            let style = ProgressStyle::with_template(template)?.progress_chars("━╸─");
            Ok(all.add(ProgressBar::new(0).with_style(style)))
        };
        let runs = bar("runs   [{bar:36.cyan/blue}] {pos}/{len}, {elapsed}, about {eta} left")?;
        let steps = bar("{prefix} [{bar:36.cyan/blue}] {pos}/{len} steps  {msg}")?.with_prefix("steps ");
        runs.set_position(results.runs.len() as u64);
        runs.reset_eta();
        Ok(Self { runs, steps, is_terminal: std::io::stderr().is_terminal() })
    }

    fn begin(&self, plan: &Plan, results: &Results) {
        self.runs.set_length((results.runs.len() + protocol::left(results)) as u64);
        self.steps.set_length(plan.steps as u64);
        self.steps.set_position(0);
        let Wanted { task, optimizer, rate, seed, stage, .. } = &plan.wanted;
        let stage = if *stage == Stage::Tuning { "tuning, " } else { "" };
        self.steps.set_message(format!("{task}, {optimizer}, {stage}rate {rate:.3e}, seed {seed}"));
    }

    fn end(&self, run: &crate::results::Run) {
        self.runs.inc(1);
        if !self.is_terminal {
            let (at, of) = (self.runs.position(), self.runs.length().unwrap_or(0));
            let outcome = if run.diverged { "diverged".to_owned() } else { format!("loss {:.4}", run.loss) };
            eprintln!(
                "{at}/{of}  {}, {}, rate {:.3e}, seed {}: {outcome}, {:.1} s",
                run.task, run.optimizer, run.rate, run.seed, run.seconds
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.steps.finish_and_clear();
        self.runs.finish_and_clear();
    }
}
