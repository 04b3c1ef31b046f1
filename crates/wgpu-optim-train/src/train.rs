//! One training run: batches, steps, losses, tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use wgpu_optim::schedule::Shape;
use wgpu_optim::{Checkpoint, GradScaler, LrSchedule, ParamGroups, Precision, Recipe, Selected, Telemetry};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};
use wgpu_optim_cache::PipelineCache;

use crate::args::{Optimizer, short};
use crate::model::Mlp;
use wgpu_optim_train::data::{Dataset, Pictures};

/// Losses stay on the GPU until this many steps have been recorded: to read one is to wait for it.
const STEPS_PER_READ: usize = 10;
/// How often the test set is evaluated within a run, in addition to the end.
const TESTS_PER_RUN: usize = 10;
/// Pictures in one forward pass over the test set.
const TEST_BATCH: usize = 1000;

/// The name of [`Progress`] in a checkpoint.
const PROGRESS: &str = "wgpu-optim-train";
/// The recipe among [`Choices`], which `--optimizer` or `--compare` chose.
const RECIPE: &str = "the recipe";

/// Where a run is kept, and until when it goes on.
pub struct Files<'a> {
    /// Its checkpoint.
    pub checkpoint: &'a Path,
    /// The contents of the checkpoint, if the run continues from it.
    pub resumed: Option<Progress>,
    /// Set when the run is to end after its step.
    pub stop: &'a AtomicBool,
}

/// What all runs of one program have in common.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the pictures are, as [`Dataset::identity`] says it.
    pub data: String,
    /// Optimizer steps.
    pub steps: usize,
    /// Pictures per step.
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
    /// Batches per step.
    pub accumulate: u32,
    /// What parameters and gradients are stored in.
    pub precision: Precision,
    /// The first of every so many steps is observed.
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
    fn choices(&self, recipe: &Recipe) -> Choices {
        let hidden = self.hidden.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let schedule = match self.schedule.shape {
            Shape::Constant {} => "constant",
            Shape::Cosine { .. } => "cosine",
            Shape::Linear { .. } => "linear",
            Shape::Step { .. } => "step",
            Shape::Stable { .. } => "stable",
            _ => "other",
        };
        let mut choices = vec![
            ("--data", self.data.clone()),
            ("--batch", self.batch.to_string()),
            ("--seed", self.seed.to_string()),
            ("--hidden", hidden),
            ("--schedule", schedule.to_owned()),
            ("--warmup", self.schedule.warmup.to_string()),
            ("--accumulate", self.accumulate.to_string()),
            ("--precision", self.precision.name().to_owned()),
            ("--lr", short(recipe.lr())),
            (RECIPE, recipe.to_json().split_whitespace().collect()),
        ];
        choices.extend(self.clip.map(|norm| ("--clip", short(norm))));
        // A constant rate does not depend on them.
        if schedule != "constant" {
            choices.push(("--steps", self.steps.to_string()));
        }
        choices.into_iter().map(|(option, value)| (option.to_owned(), value)).collect()
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
    /// Observed steps, if telemetry was requested. In a resumed run, those since then.
    pub telemetry: Vec<Telemetry>,
}

/// The options that decide a run's result, with their values.
type Choices = BTreeMap<String, String>;

/// What a checkpoint has in addition to model and optimizer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    choices: Choices,
    losses: Vec<f32>,
    tests: Vec<(usize, f64)>,
    setup: f64,
    training: f64,
}

impl Progress {
    /// That of a checkpoint, if there is one.
    ///
    /// # Errors
    /// If the checkpoint is of another run: it names the options that differ, or the steps that are too few.
    pub fn of(checkpoint: &Path, options: &Options, recipe: &Recipe) -> Result<Option<Self>> {
        let path = checkpoint.display();
        if !checkpoint.try_exists().with_context(|| format!("cannot read {path}"))? {
            return Ok(None);
        }
        let file = Checkpoint::open(checkpoint)?;
        let found = file.extra().get(PROGRESS).context("it has no entry of this program");
        let progress: Self = found.and_then(|text| Ok(serde_json::from_str(text)?)).with_context(|| {
            format!(
                "cannot go on from {path}, which another program or version wrote; leave out --resume to start over"
            )
        })?;
        if let Some((there, here)) = differences(&progress.choices, &options.choices(recipe)) {
            let may_grow = match here.contains("--steps") {
                true => " (--steps may grow only under --schedule constant)",
                false => "",
            };
            bail!(
                "{path} belongs to a run with {there}, but this run has {here}{may_grow}; give the same options to go on, or \
                 leave out --resume to start over"
            );
        }
        ensure!(
            progress.steps() <= options.steps,
            "{path} has taken {} steps, more than --steps {}; give more --steps to go on, or leave out --resume to start over",
            progress.steps(),
            options.steps
        );
        Ok(Some(progress))
    }

    /// Steps that were taken.
    pub fn steps(&self) -> usize {
        self.losses.len()
    }
}

/// The options that two runs do not share, in the words of the one and of the other.
fn differences(there: &Choices, here: &Choices) -> Option<(String, String)> {
    let differs = |option: &str| there.get(option) != here.get(option);
    let mut options: Vec<&String> = there.keys().chain(here.keys()).filter(|option| differs(option)).collect();
    options.sort_unstable();
    options.dedup();
    // What follows from another option is not named.
    let is_same_recipe = || {
        let [there, here] = [there, here].map(|choices| Recipe::from_json(choices.get(RECIPE)?).ok());
        there.zip(here).is_some_and(|(there, here)| there.with_lr(here.lr()) == here)
    };
    options.retain(|option| match option.as_str() {
        "--steps" => !differs("--schedule"),
        RECIPE => !is_same_recipe(),
        _ => true,
    });
    let words = |choices: &Choices| {
        let word = |option: &&String| match choices.get(*option) {
            Some(value) => format!("{option} {value}"),
            None => format!("no {option}"),
        };
        options.iter().map(word).collect::<Vec<_>>().join(", ")
    };
    (!options.is_empty()).then(|| (words(there), words(here)))
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
pub fn warm_up(
    gpu: &Gpu,
    data: &Dataset,
    options: &Options,
    recipe: Recipe,
    cache: Option<&PipelineCache>,
) -> Result<()> {
    let device = gpu.device.clone().autodiff();
    let mut model = Mlp::new(&options.widths(data), options.seed, &device).cast(options.dtype());
    let mut batches = Batches::new(data, options);
    let mut optim = model.optimizer(gpu, recipe, cache);
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
    files: Files<'_>,
    cache: Option<&PipelineCache>,
    bar: &ProgressBar,
) -> Result<Run> {
    let Optimizer { name, recipe } = optimizer;
    let recipe = *recipe;
    let device = gpu.device.clone().autodiff();
    let start = Instant::now();
    let mut model = Mlp::new(&options.widths(data), options.seed, &device).cast(options.dtype());
    let mut batches = Batches::new(data, options);
    let settings = options.clone();
    let mut optim = model.optimizer(gpu, recipe, cache).with_settings(move |groups| settings.settings(groups));
    if let Some(progress) = &files.resumed {
        optim.load_checkpoint(files.checkpoint, &mut model)?;
        batches.skip(progress.steps() * options.accumulate as usize);
        bar.set_position(progress.steps() as u64);
    }
    let Progress { mut losses, mut tests, setup, training, .. } = files.resumed.unwrap_or_default();
    // A file may hold anything.
    let seconds = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let (mut setup, mut training) = (seconds(setup), seconds(training));
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
            // At the averages, under schedule-free recipes.
            model = optim.evaluate(model)?;
            tests.push((done, accuracy(&model, data, options, &gpu.device)?));
            model = optim.train(model)?;
            since = Instant::now();
        }
        if save && (interrupted || options.save_every > 0) {
            gpu.device.sync()?;
            training += since.elapsed();
            let progress = Progress {
                choices: options.choices(&recipe),
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
    model = optim.evaluate(model)?;
    // A run that was interrupted, or goes on from one that was and takes no more steps.
    if tests.last().is_none_or(|&(step, _)| step != losses.len()) {
        tests.push((losses.len(), accuracy(&model, data, options, &gpu.device)?));
    }
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
        right += rows.iter().zip(answers).filter(|&(&row, answer)| answer == i64::from(data.test.labels[row])).count();
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
            data: String::new(),
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
    fn runs_differ_in_the_options_that_decide_their_result() {
        let recipe: Recipe = "mgup-muon".parse().unwrap();
        let base = Options { steps: 600, ..options(64, 0) };
        let compare =
            |other: &Options, recipe_there: Recipe| differences(&base.choices(&recipe_there), &other.choices(&recipe));
        let told = |there: &str, here: &str| Some((there.to_owned(), here.to_owned()));
        // Neither these, nor the steps of a constant rate.
        let same = Options { steps: 800, selection: true, telemetry: Some(3), save_every: 7, ..base.clone() };
        assert_eq!(compare(&same, recipe), None);
        let warm = LrSchedule::constant().with_warmup(50);
        let [first, longer] = [600, 800].map(|steps| Options { steps, schedule: warm.clone(), ..base.clone() });
        assert_eq!(differences(&first.choices(&recipe), &longer.choices(&recipe)), None);
        assert_eq!(compare(&first, recipe), told("--warmup 0", "--warmup 50"));

        let cosine = |steps| {
            let schedule = LrSchedule::cosine(steps as u64, 0.0);
            Options { steps, schedule, ..base.clone() }.choices(&recipe)
        };
        assert_eq!(differences(&cosine(600), &cosine(600)), None);
        assert_eq!(differences(&cosine(600), &cosine(800)), told("--steps 600", "--steps 800"));
        let schedules = told("--schedule constant", "--schedule cosine");
        assert_eq!(differences(&base.choices(&recipe), &cosine(800)), schedules);

        let other = Options { clip: Some(1e-9), hidden: vec![8, 4], ..base.clone() };
        assert_eq!(compare(&other, recipe), told("no --clip, --hidden 4", "--clip 1e-9, --hidden 8,4"));
        let lr = compare(&base, recipe.with_lr(2.0 * recipe.lr()));
        assert_eq!(lr, told(&format!("--lr {}", 2.0 * recipe.lr()), &format!("--lr {}", recipe.lr())));
        let (there, here) = compare(&base, "muon".parse().unwrap()).unwrap();
        assert!(there.starts_with("the recipe {") && here.contains("mgup"), "{there} {here}");
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
