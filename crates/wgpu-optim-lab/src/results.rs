//! The results of a study: one JSON file with every run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::files;
use crate::learner::Place;

/// The version of the file's format.
const FORMAT: u32 = 1;
/// The name of the file in the directory of a study.
pub const FILE: &str = "results.json";

/// A study and what its runs have measured so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// The version of the format, 1.
    pub format: u32,
    /// What is compared.
    pub study: Config,
    /// Descriptions of the data of each task, in the order of the tasks.
    pub data: Vec<String>,
    /// Where and with what the runs were made.
    pub machine: Machine,
    /// The runs, in the order in which they ended.
    pub runs: Vec<Run>,
}

/// Where and with what runs were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Name, backend and driver of the adapter.
    pub adapter: String,
    /// Where the models learned.
    pub model: Place,
    /// The version of this program.
    pub version: String,
    /// The version of Burn.
    pub burn: String,
    /// Whether Burn chose its kernels by timing them. Then the same command may give other numbers.
    pub autotune: bool,
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { adapter, model, version, burn, .. } = self;
        let model = match model {
            Place::Adapter => "models on the adapter",
            Place::Host => "models on the CPU",
        };
        write!(f, "{adapter}, {model}, version {version}, Burn {burn}")
    }
}

/// What a run is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// To choose a learning rate.
    Tuning,
    /// To be compared.
    Final,
}

/// A run: what was run, and what it measured. Numbers that are not finite are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The task.
    pub task: String,
    /// The optimizer, by its name in the study.
    pub optimizer: String,
    /// The highest learning rate of the schedule.
    pub rate: f64,
    /// Determines the initial parameters and the batches.
    pub seed: u64,
    /// What the run is for.
    pub stage: Stage,
    /// The training loss of each step, before the step.
    pub losses: Vec<Option<f32>>,
    /// The loss of the untrained model on the held-out set of this stage.
    pub untrained: f64,
    /// The loss of the trained model there. That of the untrained model, if the run diverged.
    pub loss: f64,
    /// Whether a loss was not finite, or the end is worse than the beginning.
    pub diverged: bool,
    /// The share of right answers on the held-out set, for tasks that have answers.
    pub accuracy: Option<f64>,
    /// How much longer the policy made some steps.
    pub lengths: Vec<Length>,
    /// The parameters before the first step and after each, for tasks of two parameters.
    pub path: Vec<[f32; 2]>,
    /// Time of the training, in seconds, without evaluations.
    pub seconds: f64,
    /// The optimizer's share of that time, 0 to 1.
    pub optimizer_share: f64,
}

/// How the factors φ of a policy changed the step u, over all tensors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Length {
    /// The step, from 1.
    pub step: u64,
    /// ‖φu‖₁ / ‖u‖₁.
    pub l1: f64,
    /// ‖φu‖₂ / ‖u‖₂.
    pub l2: f64,
    /// ⟨φu, g⟩ / ⟨u, g⟩.
    pub descent: f64,
}

impl Results {
    /// Results of a study that has not begun.
    pub fn new(study: Config, data: Vec<String>, machine: Machine) -> Self {
        Self { format: FORMAT, study, data, machine, runs: Vec::new() }
    }

    /// Where they lie in the directory of a study.
    pub fn path(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    /// Reads those of a directory.
    ///
    /// # Errors
    /// If there are none, or they are malformed.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = Self::path(directory);
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let found: Self = serde_json::from_slice(&text).with_context(|| format!("{} is malformed", path.display()))?;
        ensure!(
            found.format == FORMAT,
            "{} has the format {}; this program reads {FORMAT}",
            path.display(),
            found.format
        );
        Ok(found)
    }

    /// Writes them into a directory, whole or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = Self::path(directory);
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        files::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The runs of an optimizer on a task, in this stage.
    pub fn of<'a>(&'a self, task: &'a str, optimizer: &'a str, stage: Stage) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.task == task && run.optimizer == optimizer && run.stage == stage)
    }
}
