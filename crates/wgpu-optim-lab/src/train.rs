//! One run: a model, an optimizer, its steps, and what they measure.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use indicatif::ProgressBar;
use rand::SeedableRng;
use wgpu_optim::{LrSchedule, ParamGroups, StepLength, Telemetry};
use wgpu_optim_burn::Gpu;
use wgpu_optim_cache::PipelineCache;

use crate::learner::{Learner, Place};
use crate::protocol::Wanted;
use crate::results::{Length, Run, Stage};
use crate::task::{Held, Rng, Task};

/// Losses stay on the GPU until this many steps have been recorded: to read one is to wait for it.
const STEPS_PER_READ: usize = 10;

/// Where runs are made.
pub struct Bench<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// Where models learn.
    pub place: Place,
    /// Pipelines from earlier runs.
    pub cache: Option<&'a PipelineCache>,
    /// Set when a run is to end after its step.
    pub stop: &'a AtomicBool,
    /// The steps of the run.
    pub bar: &'a ProgressBar,
}

/// A run, and how it is made.
pub struct Plan {
    /// The run.
    pub wanted: Wanted,
    /// The optimizer at that rate, as a single group.
    pub groups: ParamGroups,
    /// Its steps.
    pub steps: usize,
    /// Share of the steps in which the rate grows.
    pub warmup: f64,
    /// Every so many steps, lengths and times are measured.
    pub telemetry: u32,
    /// The norm that gradients are clipped to.
    pub max_grad_norm: Option<f64>,
}

/// A task whose model is of any type.
pub trait Trains {
    /// A description of its data.
    fn data(&self) -> String;

    /// Makes a run. `None` if it was stopped.
    ///
    /// # Errors
    /// If the device fails.
    fn train(&self, bench: &Bench<'_>, plan: &Plan) -> Result<Option<Run>>;
}

impl<T: Task> Trains for T {
    fn data(&self) -> String {
        Task::data(self)
    }

    fn train(&self, bench: &Bench<'_>, plan: &Plan) -> Result<Option<Run>> {
        let Plan { wanted, groups, steps, .. } = plan;
        let device = bench.place.device(bench.gpu);
        let go_on = |done: usize, all: usize| {
            if done.is_multiple_of(STEPS_PER_READ) {
                bench.bar.set_message(format!("{}: prepares, {} %", wanted.task, 100 * done / all));
            }
            !bench.stop.load(Ordering::Relaxed)
        };
        let message = bench.bar.message();
        self.prepare(&device, &go_on)?;
        bench.bar.set_message(message);
        if bench.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let held = self
            .held_out(if wanted.stage == Stage::Tuning { Held::Tuning } else { Held::Final }, &device.clone().inner());
        // Runs of one seed have the same parameters and batches, whatever their optimizer.
        let mut model = self.model(&mut Rng::seed_from_u64(wanted.seed), &device);
        let mut rng = Rng::seed_from_u64(wanted.seed ^ u64::from_le_bytes(*b"batches!"));
        let untrained = evaluate(self, &model, &held)?.0;
        let mut learner = plan.learner(bench, self, &model)?;
        let schedule = LrSchedule::cosine(*steps as u64, 0.0).with_warmup((plan.warmup * *steps as f64).round() as u64);
        let (mut losses, mut path, mut lengths, mut pending) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut times = Vec::new();
        path.extend(self.point(&model).map(|point| point.inner()));
        let begun = Instant::now();
        for step in 0..*steps {
            if bench.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let loss = self.loss(&model, &self.batch(&mut rng, &device));
            pending.push(loss.clone().inner());
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            let rate = groups.recipes()[0].lr() * schedule.factor(step as u64) * times_at(&wanted.lengths, step);
            // The time of the optimizer alone, in the middle between two steps that are observed.
            let is_timed = step % plan.telemetry as usize == plan.telemetry as usize / 2 && step > 0;
            if is_timed {
                device.sync()?;
            }
            let since = Instant::now();
            model = learner.step(rate, model, grads)?;
            if is_timed {
                device.sync()?;
                times.push(since.elapsed());
            }
            lengths.extend(learner.telemetry()?.iter().filter_map(length));
            path.extend(self.point(&model).map(|point| point.inner()));
            if pending.len() == STEPS_PER_READ || step + 1 == *steps {
                losses.extend(read(&mut pending)?);
                bench.bar.set_position(step as u64 + 1);
            }
        }
        device.sync()?;
        let training = begun.elapsed();
        lengths.extend(learner.telemetry()?.iter().filter_map(length));
        model = learner.evaluate(model)?;
        let (loss, accuracy) = evaluate(self, &model, &held)?;
        let diverged = !loss.is_finite() || loss > untrained || losses.iter().any(|loss| !loss.is_finite());
        let path = path.into_iter().map(|point| two(&point)).collect::<Result<_>>()?;
        Ok(Some(Run {
            task: wanted.task.clone(),
            optimizer: wanted.optimizer.clone(),
            rate: wanted.rate,
            seed: wanted.seed,
            stage: wanted.stage,
            losses: losses.into_iter().map(|loss| loss.is_finite().then_some(loss)).collect(),
            untrained,
            loss: if diverged { untrained } else { loss },
            diverged,
            accuracy,
            lengths,
            path,
            seconds: training.as_secs_f64(),
            optimizer_share: share(&mut times, training, *steps),
        }))
    }
}

impl Plan {
    /// The optimizer of a model.
    fn learner<T: Task>(&self, bench: &Bench<'_>, task: &T, model: &T::Model) -> Result<Learner> {
        let cache = bench.cache.map(|cache| cache.handle().clone());
        let (every, norm) = (self.telemetry, self.max_grad_norm);
        let settings = move |groups: ParamGroups| {
            let groups = groups.with_telemetry(every);
            let groups = norm.map_or(groups.clone(), |norm| groups.with_max_grad_norm(norm));
            cache.as_ref().map_or(groups.clone(), |cache| groups.with_pipeline_cache(cache))
        };
        Learner::new((bench.gpu, bench.place), model, self.groups.clone(), settings, task.layouts())
    }
}

/// The mean loss and the share of right answers on a held-out set.
fn evaluate<T: Task>(task: &T, model: &T::Model, held: &[T::Batch]) -> Result<(f64, Option<f64>)> {
    let model = model.valid();
    let losses = held.iter().map(|batch| task.loss(&model, batch)).collect();
    let right: Option<Vec<_>> = held.iter().map(|batch| task.accuracy(&model, batch)).collect();
    let mean = |values: Vec<f32>| values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64;
    let loss = mean(read(&mut { losses })?);
    Ok((loss, right.map(|mut right| read(&mut right)).transpose()?.map(mean)))
}

/// Brings numbers to the host.
fn read(pending: &mut Vec<Tensor<1>>) -> Result<Vec<f32>> {
    Tensor::cat(std::mem::take(pending), 0).try_into_vec_as().context("cannot read the losses")
}

fn two(point: &Tensor<1>) -> Result<[f32; 2]> {
    let values: Vec<f32> = point.clone().try_into_vec_as().context("cannot read the parameters")?;
    values.try_into().map_err(|values: Vec<f32>| anyhow::anyhow!("a path has 2 parameters, not {}", values.len()))
}

/// The optimizer's share of the time: the median of its steps that were timed, against the mean of all steps.
fn share(times: &mut [Duration], training: Duration, steps: usize) -> f64 {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    (median.as_secs_f64() * steps as f64 / training.as_secs_f64()).min(1.0)
}

/// What the rate of a step is multiplied by: the quotient of the lengths that were measured next to it.
fn times_at(lengths: &[Length], step: usize) -> f64 {
    let distance = |length: &&Length| length.step.abs_diff(step as u64 + 1);
    lengths.iter().min_by_key(distance).map_or(1.0, |length| length.l2)
}

/// The quotients of an observed step over all tensors. `None` if no tensor has them.
fn length(found: &Telemetry) -> Option<Length> {
    let steps: Vec<_> = found.tensors.iter().filter_map(|tensor| tensor.lengths).collect();
    let quotient = |of: fn(&StepLength) -> f32, power: i32| {
        let [plain, taken] =
            [0, 1].map(|at| steps.iter().map(|pair| f64::from(of(&pair[at])).powi(power)).sum::<f64>());
        (taken / plain).powf(1.0 / f64::from(power))
    };
    let (l1, l2, descent) =
        (quotient(|step| step.l1, 1), quotient(|step| step.l2, 2), quotient(|step| step.descent, 1));
    let found = Length { step: found.step, l1, l2, descent };
    [found.l1, found.l2, found.descent].iter().all(|value| value.is_finite()).then_some(found)
}
