//! Which runs a study needs, and what they say. The same for every study:
//!
//! - Each optimizer tries the same number of learning rates, with at least two seeds each. If the best rate of one of them is the smallest
//!   or the largest, all of them try one more, until all best rates lie between others.
//! - The best rate has the lowest mean loss on a tuning set. Runs that diverged count as infinite.
//! - It then runs with fresh seeds, which fix the initial parameters and the batches, so that runs of one seed form a pair. Losses are
//!   those on a set that nothing was chosen by. A run that diverged counts as the untrained model.

use crate::config::{OptimizerConfig, Rate, Times, Tuning};
use crate::results::{Length, Results, Run, Stage};
use crate::statistics::{Comparison, Spread, compare};

/// The first seed for tuning. Fresh seeds begin at 0.
const TUNING_SEED: u64 = 1_000_000;

/// A run that a study needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The task.
    pub task: String,
    /// The optimizer.
    pub optimizer: String,
    /// The highest learning rate of the schedule.
    pub rate: f64,
    /// By what the rate of each step is multiplied in addition; nothing for 1.
    pub lengths: Vec<Length>,
    /// The seed.
    pub seed: u64,
    /// What the run is for.
    pub stage: Stage,
}

/// What was found at a learning rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// The learning rate.
    pub rate: f64,
    /// The loss over the seeds.
    pub loss: Spread,
    /// How many of the runs diverged.
    pub diverged: usize,
}

impl Tried {
    /// What decides between rates.
    fn mean(&self) -> f64 {
        if self.diverged > 0 { f64::INFINITY } else { self.loss.mean }
    }
}

/// The rates that an optimizer has tried on a task, in order, and the best of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What was tried. Empty if nothing was tuned.
    pub tried: Vec<Tried>,
    /// The rate to run at.
    pub rate: f64,
    /// Whether that is the smallest or the largest.
    pub is_at_edge: bool,
}

/// The runs of tuning that are missing on a task, or the choices if none is.
fn tune(results: &Results, tuning: &Tuning, task: &str) -> Result<Vec<(String, Choice)>, Vec<Wanted>> {
    let tuned: Vec<(&str, f64)> = results
        .study
        .optimizers
        .iter()
        .filter_map(|own| Some((own.name.as_str(), own.rate.as_ref().and_then(|rate| Rate::on(rate, task))?)))
        .collect();
    let grid = |middle: f64| {
        (0..tuning.rates).map(move |i| middle * tuning.factor.powi(i as i32 - (tuning.rates / 2) as i32)).collect()
    };
    let mut grids: Vec<Vec<f64>> = tuned.iter().map(|&(_, middle)| grid(middle)).collect();
    loop {
        let mut wanted = Vec::new();
        for seed in (TUNING_SEED..).take(tuning.seeds) {
            for ((name, _), rates) in tuned.iter().zip(&grids) {
                let missing = rates.iter().filter(|&&rate| !has(results, task, name, rate, seed, Stage::Tuning));
                wanted.extend(missing.map(|&rate| Wanted {
                    task: task.to_owned(),
                    optimizer: (*name).to_owned(),
                    rate,
                    lengths: Vec::new(),
                    seed,
                    stage: Stage::Tuning,
                }));
            }
        }
        if !wanted.is_empty() {
            return Err(wanted);
        }
        let choices: Vec<_> = tuned
            .iter()
            .zip(&grids)
            .map(|((name, _), rates)| ((*name).to_owned(), choose(results, task, name, rates)))
            .collect();
        let count = grids[0].len();
        if count >= tuning.most || choices.iter().all(|(_, choice)| !choice.is_at_edge) {
            return Ok(choices);
        }
        for (rates, (_, choice)) in grids.iter_mut().zip(&choices) {
            widen(rates, choice, tuning.factor);
        }
    }
}

fn has(results: &Results, task: &str, optimizer: &str, rate: f64, seed: u64, stage: Stage) -> bool {
    results.of(task, optimizer, stage).any(|run| run.rate == rate && run.seed == seed)
}

fn choose(results: &Results, task: &str, optimizer: &str, rates: &[f64]) -> Choice {
    let tried: Vec<_> = rates
        .iter()
        .filter_map(|&rate| {
            let runs: Vec<&Run> = results.of(task, optimizer, Stage::Tuning).filter(|run| run.rate == rate).collect();
            let loss = Spread::of(&runs.iter().map(|run| run.loss).collect::<Vec<_>>())?;
            Some(Tried { rate, loss, diverged: runs.iter().filter(|run| run.diverged).count() })
        })
        .collect();
    let best = (0..tried.len()).min_by(|&a, &b| tried[a].mean().total_cmp(&tried[b].mean())).unwrap_or(0);
    Choice { rate: tried[best].rate, is_at_edge: best == 0 || best + 1 == tried.len(), tried }
}

/// Adds a rate beyond the better edge. If the best rate is at an edge, that is the better one.
fn widen(rates: &mut Vec<f64>, choice: &Choice, factor: f64) {
    let [first, last] = [choice.tried[0].mean(), choice.tried[choice.tried.len() - 1].mean()];
    // Where all diverged, smaller rates may not.
    if first <= last {
        rates.insert(0, rates[0] / factor);
    } else {
        rates.push(rates[rates.len() - 1] * factor);
    }
}

/// What each optimizer of a task runs at, as far as it is known.
pub fn choices(results: &Results, task: &str) -> Vec<(String, Choice)> {
    let at = |rate| Choice { tried: Vec::new(), rate, is_at_edge: false };
    match &results.study.tuning {
        Some(tuning) => tune(results, tuning, task).unwrap_or_default(),
        None => {
            let rates = results
                .study
                .optimizers
                .iter()
                .map(|own| (own.name.clone(), own.rate.as_ref().and_then(|rate| rate.on(task))));
            rates.filter_map(|(name, rate)| Some((name, at(rate?)))).collect()
        }
    }
}

/// The runs that a study needs next, in order; none if it is complete. Those after them may depend on what these find.
pub fn wanted(results: &Results) -> Vec<Wanted> {
    results.study.tasks.iter().flat_map(|task| on_task(results, task.name())).collect()
}

fn on_task(results: &Results, task: &str) -> Vec<Wanted> {
    let study = &results.study;
    if let Some(tuning) = &study.tuning
        && let Err(wanted) = tune(results, tuning, task)
    {
        return wanted;
    }
    let choices = choices(results, task);
    let wanted = |own: &OptimizerConfig, seed| {
        let (rate, lengths) = rate_of(results, task, &choices, own)?;
        let is_missing = !has(results, task, &own.name, rate, seed, Stage::Final);
        is_missing.then(|| Wanted {
            task: task.to_owned(),
            optimizer: own.name.clone(),
            rate,
            lengths,
            seed,
            stage: Stage::Final,
        })
    };
    (0..study.seeds as u64).flat_map(|seed| study.optimizers.iter().filter_map(move |own| wanted(own, seed))).collect()
}

/// The rate of an optimizer, and what multiplies it in each step. `None` until the runs that it follows from are there.
fn rate_of(
    results: &Results,
    task: &str,
    choices: &[(String, Choice)],
    own: &OptimizerConfig,
) -> Option<(f64, Vec<Length>)> {
    let followed = own.rate_of.as_ref().unwrap_or(&own.name);
    let rate = choices.iter().find(|(name, _)| name == followed)?.1.rate;
    match &own.times {
        None => Some((rate, Vec::new())),
        Some(Times::Number(times)) => Some((rate * times, Vec::new())),
        Some(Times::Named(_)) => {
            let runs: Vec<&Run> = results.of(task, followed, Stage::Final).filter(|run| run.rate == rate).collect();
            (runs.len() == results.study.seeds).then(|| (rate, mean_lengths(&runs)))
        }
    }
}

/// The mean over runs, step by step.
pub fn mean_lengths(runs: &[&Run]) -> Vec<Length> {
    let steps = runs.iter().map(|run| run.lengths.len()).min().unwrap_or(0);
    let mean = |at: usize, of: fn(&Length) -> f64| {
        runs.iter().map(|run| of(&run.lengths[at])).sum::<f64>() / runs.len() as f64
    };
    let of = |at: usize| Length {
        step: runs[0].lengths[at].step,
        l1: mean(at, |l| l.l1),
        l2: mean(at, |l| l.l2),
        descent: mean(at, |l| l.descent),
    };
    (0..steps).map(of).collect()
}

/// How many runs are left if no grid of rates is widened further.
pub fn left(results: &Results) -> usize {
    let study = &results.study;
    let finals = study.optimizers.len() * study.seeds;
    let of_task = |task: &str| {
        let next = on_task(results, task);
        match next.first().map(|wanted| wanted.stage) {
            Some(Stage::Tuning) => next.len() + finals,
            // Some controls are known only after others have run.
            Some(Stage::Final) => {
                finals - results.runs.iter().filter(|run| run.task == task && run.stage == Stage::Final).count()
            }
            None => 0,
        }
    };
    study.tasks.iter().map(|task| of_task(task.name())).sum()
}

/// Compares the final runs of two optimizers on a task.
pub fn comparison(results: &Results, task: &str, own: &str, other: &str) -> Comparison {
    let choices = choices(results, task);
    let config = |name: &str| results.study.optimizer(name);
    let rate =
        |name: &str| config(name).and_then(|found| rate_of(results, task, &choices, found)).map(|(rate, _)| rate);
    let edge = |name: &str| {
        let followed = config(name).and_then(|found| found.rate_of.as_deref()).unwrap_or(name);
        choices.iter().any(|(found, choice)| found == followed && choice.is_at_edge)
    };
    let (Some(own_rate), Some(other_rate)) = (rate(own), rate(other)) else {
        return compare(&[], Some("runs are missing".into()));
    };
    let pairs: Vec<_> = (0..results.study.seeds as u64)
        .filter_map(|seed| {
            let loss = |name, rate| {
                results
                    .of(task, name, Stage::Final)
                    .find(|run| run.seed == seed && run.rate == rate)
                    .map(|run| run.loss)
            };
            Some((loss(own, own_rate)?, loss(other, other_rate)?))
        })
        .collect();
    let edges: Vec<_> = [own, other].into_iter().filter(|name| edge(name)).collect();
    let edge = (!edges.is_empty()).then(|| format!("rate at edge: {}", edges.join(", ")));
    compare(&pairs, edge)
}

/// The final runs of an optimizer on a task, at the rate that was chosen.
pub fn final_runs<'a>(results: &'a Results, task: &'a str, optimizer: &'a str) -> Vec<&'a Run> {
    let choices = choices(results, task);
    let rate = results
        .study
        .optimizer(optimizer)
        .and_then(|found| rate_of(results, task, &choices, found))
        .map(|(rate, _)| rate);
    results.of(task, optimizer, Stage::Final).filter(|run| Some(run.rate) == rate).collect()
}
