//! One training run: batches, steps, losses, tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use wgpu_optim::{GradScaler, LrSchedule, ParamGroups, Precision, Recipe, Selected, Telemetry};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};

use crate::args::Optimizer;
use crate::data::{Dataset, Pictures};
use crate::model::Mlp;

/// Losses stay on the GPU until this many steps have been recorded: to read one is to wait for it.
const STEPS_PER_READ: usize = 10;
/// How often the test set is asked within a run, besides the end.
const TESTS_PER_RUN: usize = 10;
/// Pictures in one forward pass over the test set.
const TEST_BATCH: usize = 1000;

/// The name of [`Progress`] in a checkpoint.
const PROGRESS: &str = "wgpu-optim-train";

/// Where a run is kept, and until when it goes on.
pub struct Files<'a> {
    /// Its checkpoint.
    pub checkpoint: &'a Path,
    /// Whether to go on from it.
    pub resume: bool,
    /// Set when the run is to end after its step.
    pub stop: &'a AtomicBool,
}

/// What all runs of one program have in common.
#[derive(Debug, Clone)]
pub struct Options {
    /// Optimizer steps.
    pub steps: usize,
    /// Pictures a step.
    pub batch: usize,
    /// Determines the initial parameters and the order of the pictures.
    pub seed: u64,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// Whether to keep what was selected in every step.
    pub selection: bool,
    /// How the learning rate changes.
    pub schedule: LrSchedule,
    /// The norm that gradients are clipped to.
    pub clip: Option<f64>,
    /// Batches a step.
    pub accumulate: u32,
    /// What parameters and gradients are stored in.
    pub precision: Precision,
    /// Of how many steps the first is observed.
    pub telemetry: Option<u32>,
    /// Steps between two checkpoints; 0 for none.
    pub save_every: usize,
}

impl Options {
    /// What the optimizer is to do around its steps.
    fn settings(&self, groups: ParamGroups) -> ParamGroups {
        let groups = groups.with_accumulation(self.accumulate).with_precision(self.precision);
        let groups = self.clip.map_or(groups.clone(), |norm| groups.with_max_grad_norm(norm));
        let groups = self.telemetry.map_or(groups.clone(), |every| groups.with_telemetry(every));
        if self.scales() { groups.with_grad_scaler(GradScaler::default()) } else { groups }
    }

    /// Whether the loss is scaled.
    fn scales(&self) -> bool {
        self.precision == Precision::F16
    }

    /// What two runs must have in common for one to go on from the other.
    fn fingerprint(&self, data: &Dataset, recipe: &Recipe) -> String {
        let Self { batch, seed, hidden, schedule, clip, accumulate, precision, .. } = self;
        let steps = if *schedule == LrSchedule::constant() { 0 } else { self.steps };
        format!(
            "data {}, batch {batch}, seed {seed}, hidden {hidden:?}, schedule {schedule:?} of {steps}, clip {clip:?}, \
             accumulate {accumulate}, precision {precision:?}, recipe {}",
            data.name,
            recipe.to_json().split_whitespace().collect::<String>()
        )
    }

    /// Burn's name of the precision.
    pub fn dtype(&self) -> DType {
        match self.precision {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }

    fn widths(&self, data: &Dataset) -> Vec<usize> {
        [&[data.features][..], &self.hidden, &[data.classes]].concat()
    }
}

/// A parameter read back after the last step.
pub struct Weights {
    /// Its path in the model.
    pub name: String,
    /// Its shape; a weight is (out, in).
    pub shape: Vec<usize>,
    /// Its values in row-major order.
    pub values: Vec<f32>,
}

/// What came of a run.
pub struct Run {
    /// The optimizer's name.
    pub optimizer: String,
    /// The training loss of every step's batch, before the step.
    pub losses: Vec<f32>,
    /// The share of right answers on the test set: (after how many steps, from 0 to 1).
    pub tests: Vec<(usize, f64)>,
    /// From the model's creation to the end of the first step, when the optimizer's pipelines are compiled.
    pub setup: Duration,
    /// From there to the end of the last step, without the tests.
    pub training: Duration,
    /// The parameters after the last step.
    pub weights: Vec<Weights>,
    /// What was selected of each tensor in each step, if it was asked for: step, path, selection.
    pub selection: Vec<(usize, String, Selected)>,
    /// What was observed of steps, if it was asked for. Of a run that was resumed, since then.
    pub telemetry: Vec<Telemetry>,
}

/// What a checkpoint has besides model and optimizer.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    fingerprint: String,
    losses: Vec<f32>,
    tests: Vec<(usize, f64)>,
    setup: f64,
    training: f64,
}

impl Run {
    /// The share of right answers after the last step.
    pub fn accuracy(&self) -> f64 {
        self.tests.last().map_or(0.0, |&(_, accuracy)| accuracy)
    }

    /// What the run took, without the tests.
    pub fn seconds(&self) -> f64 {
        (self.setup + self.training).as_secs_f64()
    }

    /// The training loss of the last step's batch.
    pub fn final_loss(&self) -> f32 {
        self.losses.last().copied().unwrap_or(f32::NAN)
    }
}

/// Compiles what every run uses of Burn, so that the first run is not charged for it.
pub fn warm_up(gpu: &Gpu, data: &Dataset, options: &Options, recipe: Recipe) -> Result<()> {
    let device = gpu.device.clone().autodiff();
    let mut model = Mlp::new(&options.widths(data), options.seed, &device).cast(options.dtype());
    let mut batches = Batches::new(data, options);
    let mut optim = model.optimizer(gpu, recipe);
    let settings = options.clone();
    optim = optim.with_settings(move |groups| settings.settings(groups).with_accumulation(1));
    let options = &Options { accumulate: 1, ..options.clone() };
    let mut pending = Vec::new();
    for done in 0..3 {
        let loss;
        (model, loss) = step(model, &mut optim, recipe, done, options, &mut batches, &device)?;
        pending.push(loss);
    }
    read(&mut pending)?;
    accuracy(&model, data, options, &gpu.device)?;
    Ok(())
}

/// Trains a model with `recipe`: a new one, or that of a checkpoint. Ends early, with a checkpoint, when it is asked to.
pub fn train(
    gpu: &Gpu,
    data: &Dataset,
    options: &Options,
    optimizer: &Optimizer,
    files: &Files<'_>,
    bar: &ProgressBar,
) -> Result<Run> {
    let Optimizer { name, recipe } = optimizer;
    let recipe = *recipe;
    let device = gpu.device.clone().autodiff();
    let start = Instant::now();
    let mut model = Mlp::new(&options.widths(data), options.seed, &device).cast(options.dtype());
    let mut batches = Batches::new(data, options);
    let settings = options.clone();
    let mut optim = model.optimizer(gpu, recipe).with_settings(move |groups| settings.settings(groups));
    let fingerprint = options.fingerprint(data, &recipe);
    let mut progress = Progress { fingerprint: fingerprint.clone(), ..Progress::default() };
    if files.resume && files.checkpoint.exists() {
        let extra;
        (model, extra) = optim.load_checkpoint(files.checkpoint, model)?;
        let found = extra.get(PROGRESS).context("it was not written by this program");
        progress = found
            .and_then(|text| Ok(serde_json::from_str(text)?))
            .with_context(|| format!("cannot go on from {}", files.checkpoint.display()))?;
        ensure!(
            progress.fingerprint == fingerprint,
            "{} is of another run:\n  there  {}\n  here   {fingerprint}",
            files.checkpoint.display(),
            progress.fingerprint
        );
        batches.skip(progress.losses.len() * options.accumulate as usize);
        bar.set_position(progress.losses.len() as u64);
    }
    let Progress { mut losses, mut tests, setup, training, .. } = progress;
    let (mut setup, mut training) = (Duration::from_secs_f64(setup), Duration::from_secs_f64(training));
    let begun = losses.len();

    let mut selection = Vec::new();
    let mut telemetry = Vec::new();
    let mut pending = Vec::new();
    let mut since = start;
    let test_every = options.steps.div_ceil(TESTS_PER_RUN);
    for done in begun + 1..=options.steps {
        let loss;
        (model, loss) = step(model, &mut optim, recipe, done - 1, options, &mut batches, &device)?;
        pending.push(loss);
        while let Some(found) = optim.optimizer().and_then(|optimizer| optimizer.take_telemetry()) {
            telemetry.push(found?);
        }
        if options.selection {
            selection.extend(optim.selected()?.into_iter().map(|(path, selected)| (done, path, selected)));
        }
        let interrupted = files.stop.load(Ordering::Relaxed) && done < options.steps;
        let (first, last) = (done == begun + 1, done == options.steps);
        let test = last || done.is_multiple_of(test_every);
        let save = interrupted || last || (options.save_every > 0 && done.is_multiple_of(options.save_every));
        if first || test || save || pending.len() == STEPS_PER_READ {
            losses.extend(read(&mut pending)?);
            check_finite(&losses, name)?;
            bar.set_position(done as u64);
            bar.set_message(format!("{:.4}", losses[losses.len() - 1]));
        }
        if first {
            gpu.device.sync()?;
            setup += since.elapsed();
            since = Instant::now();
        }
        if test {
            gpu.device.sync()?;
            training += since.elapsed();
            tests.push((done, accuracy(&model, data, options, &gpu.device)?));
            since = Instant::now();
        }
        if save && (interrupted || options.save_every > 0) {
            gpu.device.sync()?;
            training += since.elapsed();
            let progress = Progress {
                fingerprint: fingerprint.clone(),
                losses: losses.clone(),
                tests: tests.clone(),
                setup: setup.as_secs_f64(),
                training: training.as_secs_f64(),
            };
            let extra = BTreeMap::from([(PROGRESS.to_owned(), serde_json::to_string(&progress)?)]);
            optim.save_checkpoint(files.checkpoint, &model, extra)?;
            since = Instant::now();
        }
        if interrupted {
            break;
        }
    }
    gpu.device.sync()?;
    while let Some(found) = optim.optimizer().and_then(|optimizer| optimizer.take_telemetry()) {
        telemetry.push(found?);
    }
    let mut weights = ReadWeights { path: Vec::new(), found: Vec::new() };
    model.visit(&mut weights);
    let weights = weights.found.into_iter().collect::<Result<_>>()?;
    Ok(Run { optimizer: name.clone(), losses, tests, setup, training, weights, selection, telemetry })
}

/// One step of `model` on the next batches: the stepped model, and the mean loss before the step.
fn step(
    mut model: Mlp,
    optim: &mut GpuModuleOptimizer,
    recipe: Recipe,
    done: usize,
    options: &Options,
    batches: &mut Batches<'_>,
    device: &Device,
) -> Result<(Mlp, Tensor<1>)> {
    let lr = recipe.lr() * options.schedule.factor(done as u64);
    let mut losses = Vec::new();
    for _ in 0..options.accumulate {
        let (pictures, targets) = batches.next(device);
        let loss = model.loss(pictures.cast(options.dtype()), targets);
        losses.push(loss.clone().inner());
        let scaled = match options.scales() {
            true => loss * Tensor::from_inner(optim.loss_scale()?),
            false => loss,
        };
        let grads = GradientsParams::from_grads(scaled.backward(), &model);
        model = optim.try_step(lr, model, grads)?;
    }
    let loss = if losses.len() == 1 { losses.remove(0) } else { Tensor::cat(losses, 0).mean() };
    Ok((model, loss))
}

/// Brings the losses of the last steps to the host.
fn read(pending: &mut Vec<Tensor<1>>) -> Result<Vec<f32>> {
    let losses = Tensor::cat(std::mem::take(pending), 0);
    losses.try_into_vec_as().context("cannot read the losses")
}

fn check_finite(losses: &[f32], optimizer: &str) -> Result<()> {
    let bad = losses.iter().position(|l| !l.is_finite());
    ensure!(
        bad.is_none(),
        "{optimizer}: the loss of step {} is not finite; a smaller --lr may help",
        bad.map_or(0, |at| at + 1)
    );
    Ok(())
}

/// The share of right answers on the test set.
fn accuracy(model: &Mlp, data: &Dataset, options: &Options, device: &Device) -> Result<f64> {
    let model = model.valid();
    let all: Vec<usize> = (0..data.test.len()).collect();
    let mut right = 0;
    for rows in all.chunks(TEST_BATCH) {
        let pictures = pictures(data, &data.test, rows, device).cast(options.dtype());
        let logits = model.forward(pictures).cast(DType::F32);
        let answers: Tensor<1, Int> = logits.argmax(1).squeeze_dim(1);
        let answers: Vec<i64> = answers.try_into_vec_as().context("cannot read the answers")?;
        right += rows
            .iter()
            .zip(answers)
            .filter(|&(&row, answer)| answer == i64::from(data.test.labels[row]))
            .count();
    }
    Ok(right as f64 / data.test.len() as f64)
}

/// The pictures of `rows`, scaled to 0 … 1, (rows, features).
fn pictures(data: &Dataset, part: &Pictures, rows: &[usize], device: &Device) -> Tensor<2> {
    let values: Vec<f32> = rows
        .iter()
        .flat_map(|&row| &part.pixels[row * data.features..(row + 1) * data.features])
        .map(|&value| f32::from(value) / data.white)
        .collect();
    Tensor::from_data(TensorData::new(values, [rows.len(), data.features]), device)
}

/// An endless row of batches: whole batches of a shuffled training set, then of another shuffle.
struct Batches<'a> {
    data: &'a Dataset,
    batch: usize,
    order: Vec<usize>,
    next: usize,
    rng: Xoshiro256PlusPlus,
}

impl<'a> Batches<'a> {
    fn new(data: &'a Dataset, options: &Options) -> Self {
        // Another stream than the initial parameters': the text is "batches!".
        let seed = options.seed ^ u64::from_le_bytes(*b"batches!");
        let mut batches = Self {
            data,
            batch: options.batch,
            order: (0..data.train.len()).collect(),
            next: 0,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        };
        batches.order.shuffle(&mut batches.rng);
        batches
    }

    /// Passes over so many batches.
    fn skip(&mut self, batches: usize) {
        for _ in 0..batches {
            self.rows();
        }
    }

    fn rows(&mut self) -> &[usize] {
        if self.next + self.batch > self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        self.next += self.batch;
        &self.order[self.next - self.batch..self.next]
    }

    /// The next pictures (batch, features) and their one-hot labels (batch, classes).
    fn next(&mut self, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let data = self.data;
        let rows = self.rows();
        let mut targets = vec![0f32; rows.len() * data.classes];
        for (at, &row) in rows.iter().enumerate() {
            targets[at * data.classes + usize::from(data.train.labels[row])] = 1.0;
        }
        let targets = TensorData::new(targets, [rows.len(), data.classes]);
        (pictures(data, &data.train, rows, device), Tensor::from_data(targets, device))
    }
}

/// Reads a model's parameters.
struct ReadWeights {
    path: Vec<String>,
    found: Vec<Result<Weights>>,
}

impl ModuleVisitor for ReadWeights {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let tensor = param.val().inner();
        let shape = tensor.dims().to_vec();
        let values = tensor.cast(DType::F32).try_into_vec_as().with_context(|| format!("cannot read {name}"));
        self.found.push(values.map(|values| Weights { name, shape, values }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(batch: usize, seed: u64) -> Options {
        Options {
            selection: false,
            steps: 1,
            batch,
            seed,
            hidden: vec![4],
            schedule: LrSchedule::constant(),
            clip: None,
            accumulate: 1,
            precision: Precision::F32,
            telemetry: None,
            save_every: 0,
        }
    }

    fn order(seed: u64, batches: usize) -> Vec<usize> {
        let data = Dataset::digits().unwrap();
        let options = options(64, seed);
        let mut all = Batches::new(&data, &options);
        (0..batches).flat_map(|_| all.rows().to_vec()).collect()
    }

    #[test]
    fn an_epoch_shows_no_picture_twice_and_the_next_is_shuffled_anew() {
        // 1,498 pictures are 23 whole batches of 64.
        let rows = order(5, 46);
        let (first, second) = rows.split_at(23 * 64);
        for epoch in [first, second] {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 23 * 64);
            assert!(sorted[sorted.len() - 1] < 1498);
        }
        assert_ne!(first, second);
    }

    #[test]
    fn the_seed_determines_the_order() {
        assert_eq!(order(5, 30), order(5, 30));
        assert_ne!(order(5, 1), order(6, 1));
        // A generator of a fixed algorithm: these hold on every machine.
        assert_eq!(order(0, 1)[..4], [1496, 254, 49, 1246]);
    }

    #[test]
    fn a_batch_may_be_the_whole_training_set() {
        let data = Dataset::digits().unwrap();
        let mut batches = Batches::new(&data, &options(1498, 0));
        for _ in 0..2 {
            let mut rows = batches.rows().to_vec();
            rows.sort_unstable();
            assert_eq!(rows, (0..1498).collect::<Vec<_>>());
        }
    }
}
