//! What a study says: tables, pictures, and a page that holds both.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use wgpu_optim_train::chart::{Axis, Chart, Interval, Legend, Series, intervals, number, smooth};

use crate::files;
use crate::protocol::{Choice, choices, comparison, final_runs, mean_lengths};
use crate::results::{Results, Run, Stage};
use crate::statistics::{Comparison, Spread, Verdict};

/// The page.
const PAGE: &str = "report.html";
/// Rates count as good whose loss is at most so much above the best one, as a share of it.
const GOOD: f64 = 0.02;

/// A table: its heading, the names of its columns, and rows.
pub(crate) struct Table {
    pub(crate) heading: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) remark: String,
}

/// A picture: the name of its file, and its SVG.
type Picture = (String, String);

/// Writes report.html and its pictures into the directory of a study.
///
/// # Errors
/// If a file cannot be written.
pub fn write(results: &Results, directory: &Path) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        files::write(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut sections = Vec::new();
    for task in &results.study.tasks {
        let pictures = pictures(results, task.name())?;
        for (name, svg) in &pictures {
            write(name, svg)?;
        }
        sections.push((task.name(), tables(results, task.name()), pictures));
    }
    write(PAGE, &page(results, &sections).into_string())
}

/// The tables as text, in Markdown.
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for (at, task) in results.study.tasks.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## {}\n\n{}, {} steps.", task.name(), results.data[at], task.steps());
        for table in tables(results, task.name()) {
            text += &format!("\n{}\n\n", table.heading);
            text += &markdown(&table);
            if !table.remark.is_empty() {
                text += &format!("\n{}\n", table.remark);
            }
        }
    }
    text + "\n" + &remarks(results).join("\n") + "\n"
}

pub(crate) fn markdown(table: &Table) -> String {
    let width = |at: usize| {
        table
            .rows
            .iter()
            .map(|row| row[at].chars().count())
            .chain([table.columns[at].chars().count()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..table.columns.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", padded.join(" | "))
    };
    let heads: Vec<_> = table.columns.iter().map(|&name| name.to_owned()).collect();
    let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    line(&heads) + &line(&rule) + &table.rows.iter().map(|row| line(row)).collect::<String>()
}

/// What holds for the whole study.
fn remarks(results: &Results) -> Vec<String> {
    let study = &results.study;
    let mut remarks = vec![format!("Adapter: {}.", results.machine)];
    match &study.tuning {
        Some(tuning) => remarks.push(format!(
            "Learning rates were tuned with {} seeds on a tuning set; the comparison has {} fresh seeds on another set.",
            tuning.seeds, study.seeds
        )),
        None => remarks.push(format!("Nothing was tuned: the learning rates are those of the study. {} seeds.", study.seeds)),
    }
    remarks.push(
        "A verdict is right in 95 of 100 cases if no other comparison is made; with many comparisons, some are wrong."
            .to_owned(),
    );
    if results.machine.autotune {
        remarks.push(
            "Warning: Burn chose its kernels by timing them. The same command may give other numbers.".to_owned(),
        );
    }
    remarks
}

fn tables(results: &Results, task: &str) -> Vec<Table> {
    let choices = choices(results, task);
    let mut tables = vec![optimizers(results, task, &choices), comparisons(results, task)];
    if results.study.tuning.is_some() {
        tables.push(rates(&choices));
    }
    let lengths = lengths(results, task);
    if !lengths.rows.is_empty() {
        tables.push(lengths);
    }
    tables
}

fn spread(values: &[f64]) -> String {
    Spread::of(values).map_or_else(|| "–".to_owned(), |found| with_error(found.mean, found.deviation, ""))
}

/// A number and its error, in powers of ten if both are small.
fn with_error(value: f64, error: f64, plus: &str) -> String {
    let sign = if value >= 0.0 { plus } else { "" };
    match value.abs().max(error) {
        least if least > 0.0 && least < 1e-3 => format!("{sign}{value:.2e} ± {error:.2e}"),
        _ => format!("{sign}{value:.4} ± {error:.4}"),
    }
}

fn optimizers(results: &Results, task: &str, choices: &[(String, Choice)]) -> Table {
    let first = &results.study.optimizers[0].name;
    let last = || smoothed(&final_runs(results, task, first)).last().copied();
    let goal = results.study.goal.or_else(last);
    let row = |name: &str| {
        let runs = final_runs(results, task, name);
        let of = |value: fn(&Run) -> f64| runs.iter().map(|run| value(run)).collect::<Vec<_>>();
        let accuracy: Option<Vec<_>> = runs.iter().map(|run| run.accuracy.map(|share| 100.0 * share)).collect();
        let edge = choices.iter().any(|(found, choice)| found == name && choice.is_at_edge);
        let rate =
            runs.first().map_or_else(|| "–".to_owned(), |run| number(run.rate) + if edge { " (edge)" } else { "" });
        let reached = goal.and_then(|goal| smoothed(&runs).iter().position(|&loss| loss <= goal));
        let mean = |values: Vec<f64>| Spread::of(&values).map(|found| found.mean);
        vec![
            name.to_owned(),
            rate,
            spread(&of(|run| run.loss)),
            accuracy.filter(|shares| !shares.is_empty()).map_or_else(|| "–".to_owned(), |shares| spread(&shares)),
            format!("{} of {}", runs.iter().filter(|run| run.diverged).count(), runs.len()),
            reached.map_or_else(|| "–".to_owned(), |at| (at + 1).to_string()),
            mean(of(|run| run.seconds)).map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}")),
            mean(of(|run| run.optimizer_share))
                .map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share)),
        ]
    };
    Table {
        heading: "Losses on the set that nothing was chosen by, mean ± standard deviation over the seeds".to_owned(),
        columns: vec!["optimizer", "rate", "loss", "accuracy, %", "diverged", "steps", "seconds", "optimizer"],
        rows: results.study.optimizers.iter().map(|own| row(&own.name)).collect(),
        remark: format!(
            "Steps: until the smoothed training loss is {}. Seconds: of a run. Optimizer: its share of that time.",
            results.study.goal.map_or_else(|| format!("that of {first} at its end"), number)
        ),
    }
}

/// The mean of the training losses over the runs, smoothed.
fn smoothed(runs: &[&Run]) -> Vec<f64> {
    let steps = runs.iter().map(|run| run.losses.len()).min().unwrap_or(0);
    let mean = |at: usize| {
        runs.iter().map(|run| run.losses[at].map_or(f64::INFINITY, f64::from)).sum::<f64>() / runs.len() as f64
    };
    smooth(&(0..steps).map(mean).collect::<Vec<_>>(), (steps / 20).max(1))
}

/// A difference with its interval.
fn interval(found: &Comparison) -> String {
    let of = |spread: Spread| match spread.half_width() {
        half if half.is_finite() => with_error(spread.mean, half, "+"),
        _ => format!("{:+.4}", spread.mean),
    };
    found.difference.map_or_else(|| "–".to_owned(), of)
}

fn comparisons(results: &Results, task: &str) -> Table {
    let row = |(own, other): (&str, &str)| {
        let found = comparison(results, task, own, other);
        let reason = found.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        vec![own.to_owned(), other.to_owned(), interval(&found), format!("{}{reason}", found.verdict)]
    };
    Table {
        heading: "Paired differences of losses, seed by seed, with the 95 % interval of their mean".to_owned(),
        columns: vec!["optimizer", "against", "difference", "verdict"],
        rows: results.study.pairs().into_iter().map(row).collect(),
        remark: "Less than 0 is better.".to_owned(),
    }
}

fn rates(choices: &[(String, Choice)]) -> Table {
    let row = |(name, choice): &(String, Choice)| {
        let tried: Vec<_> = choice
            .tried
            .iter()
            .map(|tried| match tried.diverged {
                0 if tried.loss.mean.abs() < 1e-3 => format!("{}: {:.2e}", number(tried.rate), tried.loss.mean),
                0 => format!("{}: {:.4}", number(tried.rate), tried.loss.mean),
                diverged => format!("{}: {diverged} diverged", number(tried.rate)),
            })
            .collect();
        vec![name.clone(), number(choice.rate), good(choice).map_or_else(|| "–".to_owned(), number), tried.join(", ")]
    };
    Table {
        heading: "Rates that were tried, and their mean losses on the tuning set".to_owned(),
        columns: vec!["optimizer", "best", "good range", "tried"],
        rows: choices.iter().filter(|(_, choice)| !choice.tried.is_empty()).map(row).collect(),
        remark: format!(
            "Good range: the quotient of the largest and the smallest rate whose loss is at most {:.0} % above the best.",
            100.0 * GOOD
        ),
    }
}

/// The quotient of the largest and the smallest good rate.
fn good(choice: &Choice) -> Option<f64> {
    let sound = || choice.tried.iter().filter(|tried| tried.diverged == 0);
    let best = sound().map(|tried| tried.loss.mean).min_by(f64::total_cmp)?;
    let good = sound().filter(|tried| tried.loss.mean <= best + GOOD * best.abs()).map(|tried| tried.rate);
    let (low, high) = good.fold((f64::MAX, f64::MIN), |(low, high), rate| (low.min(rate), high.max(rate)));
    Some(high / low)
}

fn lengths(results: &Results, task: &str) -> Table {
    let row = |name: &str| {
        let runs = final_runs(results, task, name);
        let lengths = if runs.is_empty() { Vec::new() } else { mean_lengths(&runs) };
        let mean = |of: fn(&crate::results::Length) -> f64| {
            Spread::of(&lengths.iter().map(of).collect::<Vec<_>>()).map(|found| format!("{:.3}", found.mean))
        };
        Some(vec![name.to_owned(), mean(|l| l.l1)?, mean(|l| l.l2)?, mean(|l| l.descent)?])
    };
    let is_one = |row: &Vec<String>| row[1..].iter().all(|cell| cell == "1.000");
    Table {
        heading: "How much longer the policy made the steps, mean over the observed steps".to_owned(),
        columns: vec!["optimizer", "‖φu‖₁ / ‖u‖₁", "‖φu‖₂ / ‖u‖₂", "⟨φu, g⟩ / ⟨u, g⟩"],
        rows: results.study.optimizers.iter().filter_map(|own| row(&own.name)).filter(|row| !is_one(row)).collect(),
        remark: "Over tensors that no matrix base steps.".to_owned(),
    }
}

fn pictures(results: &Results, task: &str) -> Result<Vec<Picture>> {
    let names: Vec<_> = results.study.optimizers.iter().map(|own| own.name.as_str()).collect();
    let named = |picture: &str| format!("{}-{picture}.svg", task.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
    let mut pictures = Vec::new();
    let mut add = |name: &str, svg: Result<String>| -> Result<()> {
        pictures.push((named(name), svg?));
        Ok(())
    };
    let runs: Vec<Vec<&Run>> = names.iter().map(|name| final_runs(results, task, name)).collect();
    if runs.iter().all(Vec::is_empty) {
        return Ok(pictures);
    }
    add("losses", losses(task, &names, &runs).svg())?;
    let rows = differences(results, task);
    if !rows.is_empty() {
        add(
            "differences",
            intervals(
                &format!("Differences of losses, {task}"),
                "difference with its 95 % interval (less than 0 is better)",
                &rows,
            ),
        )?;
    }
    let choices = choices(results, task);
    if results.study.tuning.is_some() {
        add("rates", against_rate(task, &names, &choices).svg())?;
    }
    if let Some(chart) = against_ratio(results, task) {
        add("ratios", chart.svg())?;
    }
    let curve = |(at, runs): (usize, &Vec<&Run>)| -> Option<Series> {
        let points: Vec<_> = mean_lengths(runs).iter().map(|length| (length.step as f64, length.l2)).collect();
        let moves = points.iter().any(|point| (point.1 - 1.0).abs() > 1e-3);
        moves.then(|| Series::line(names[at], at, points))
    };
    let series: Vec<_> = runs.iter().enumerate().filter(|(_, runs)| !runs.is_empty()).filter_map(curve).collect();
    if !series.is_empty() {
        let title = format!("Lengths of steps, {task}");
        let chart =
            Chart {
                title, x: Axis::linear("step"), y: Axis::linear("‖φu‖₂ / ‖u‖₂"), series, legend: Legend::Right
            };
        add("lengths", chart.svg())?;
    }
    if runs.iter().flatten().any(|run| !run.path.is_empty()) {
        let path = |(at, runs): (usize, &Vec<&Run>)| {
            let points = runs.first()?.path.iter().map(|[x, y]| (f64::from(*x), f64::from(*y))).collect();
            Some(Series { width: 2, has_marks: true, ..Series::line(names[at], at, points) })
        };
        let series = runs.iter().enumerate().filter_map(path).collect();
        let title = format!("Paths from one point, {task}");
        add("paths", Chart { title, x: Axis::linear("x"), y: Axis::linear("y"), series, legend: Legend::Right }.svg())?;
    }
    Ok(pictures)
}

/// Smoothed training losses, with a band of the standard deviation over the seeds. Losses of the first tenth of the steps may be cut off.
fn losses(task: &str, names: &[&str], runs: &[Vec<&Run>]) -> Chart {
    let series = |(at, runs): (usize, &Vec<&Run>)| {
        let curves: Vec<Vec<f64>> = runs.iter().map(|run| smoothed(&[run])).collect();
        let steps = curves.iter().map(Vec::len).min().unwrap_or(0);
        let spread = |step: usize| Spread::of(&curves.iter().map(|curve| curve[step]).collect::<Vec<_>>());
        let all: Vec<_> = (0..steps).filter_map(|step| Some(((step + 1) as f64, spread(step)?))).collect();
        let band =
            all.iter().map(|(x, found)| (*x, found.mean - found.deviation, found.mean + found.deviation)).collect();
        Series { band, ..Series::line(names[at], at, all.iter().map(|(x, found)| (*x, found.mean)).collect()) }
    };
    let series: Vec<Series> = runs.iter().enumerate().filter(|(_, runs)| !runs.is_empty()).map(series).collect();
    let later = || series.iter().flat_map(|series| series.points.iter().skip(series.points.len() / 10));
    let losses = || later().map(|point| point.1).filter(|loss| loss.is_finite() && *loss > 0.0);
    let range = losses().min_by(f64::total_cmp).zip(losses().max_by(f64::total_cmp));
    Chart {
        title: format!("Training loss, {task}"),
        x: Axis::linear("step"),
        y: Axis { range: range.map(|(low, high)| (0.98 * low, 1.02 * high)), ..Axis::log("loss (log scale)") },
        series,
        legend: Legend::Right,
    }
}

fn differences(results: &Results, task: &str) -> Vec<Interval> {
    let row = |(own, other): (&str, &str)| {
        let found = comparison(results, task, own, other);
        let difference = found.difference?;
        let half = if difference.half_width().is_finite() { difference.half_width() } else { 0.0 };
        // Blue, orange and gray.
        let color = match found.verdict {
            Verdict::Better => 0,
            Verdict::Worse => 1,
            Verdict::Undecided => 6,
        };
        let ends = (difference.mean - half, difference.mean + half);
        Some(Interval { name: format!("{own} − {other}: {}", found.verdict), middle: difference.mean, ends, color })
    };
    results.study.pairs().into_iter().filter_map(row).collect()
}

fn against_rate(task: &str, names: &[&str], choices: &[(String, Choice)]) -> Chart {
    let series = choices.iter().filter_map(|(name, choice)| {
        let at = names.iter().position(|found| found == name)?;
        let points = choice
            .tried
            .iter()
            .filter(|tried| tried.diverged == 0)
            .map(|tried| (tried.rate, tried.loss.mean))
            .collect();
        Some(Series { has_marks: true, ..Series::line(name, at, points) })
    });
    Chart {
        title: format!("Loss against learning rate, {task}"),
        x: Axis::log("learning rate (log scale)"),
        y: Axis::log("loss on the tuning set (log scale)"),
        series: series.collect(),
        legend: Legend::Right,
    }
}

/// Losses against τ, where a study has a recipe with several of them.
fn against_ratio(results: &Results, task: &str) -> Option<Chart> {
    let ratio = |name: &str| results.study.optimizer(name)?.policy.get("ratio")?.as_float();
    let mut recipes: Vec<(&str, Vec<(f64, Spread)>)> = Vec::new();
    for own in &results.study.optimizers {
        let losses: Vec<_> = final_runs(results, task, &own.name).iter().map(|run| run.loss).collect();
        let (Some(ratio), Some(loss)) = (ratio(&own.name), Spread::of(&losses)) else { continue };
        match recipes.iter_mut().find(|(recipe, _)| *recipe == own.recipe) {
            Some((_, points)) => points.push((ratio, loss)),
            None => recipes.push((&own.recipe, vec![(ratio, loss)])),
        }
    }
    recipes.retain(|(_, points)| points.len() > 2);
    let series: Vec<_> = recipes
        .into_iter()
        .enumerate()
        .map(|(at, (recipe, mut points))| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let band =
                points.iter().map(|(x, loss)| (*x, loss.mean - loss.deviation, loss.mean + loss.deviation)).collect();
            let points = points.iter().map(|(x, loss)| (*x, loss.mean)).collect();
            Series { band, has_marks: true, ..Series::line(recipe, at, points) }
        })
        .collect();
    (!series.is_empty()).then(|| Chart {
        title: format!("Loss against τ, {task}"),
        x: Axis::linear("τ"),
        y: Axis::linear("loss"),
        series,
        legend: Legend::Right,
    })
}

fn page(results: &Results, sections: &[(&str, Vec<Table>, Vec<Picture>)]) -> Markup {
    let finals = results.runs.iter().filter(|run| run.stage == Stage::Final).count();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (results.study.name) " – wgpu-optim-lab" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Study " (results.study.name) }
                @for remark in remarks(results) { p { (remark) } }
                p { (results.runs.len()) " runs, " (finals) " of them for the comparison." }
                @for ((name, tables, pictures), data) in sections.iter().zip(&results.data) {
                    h2 { (name) }
                    p { (data) "." }
                    @for table in tables {
                        h3 { (table.heading) }
                        div class="wide" { table {
                            thead { tr { @for column in &table.columns { th { (column) } } } }
                            tbody { @for row in &table.rows { tr { @for cell in row { td { (cell) } } } } }
                        } }
                        @if !table.remark.is_empty() { p { (table.remark) } }
                    }
                    @for (name, svg) in pictures { figure id=(name) { (PreEscaped(svg)) } }
                }
            }
        }
    }
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #222 }
h1, h2 { line-height: 1.2 } h3 { font-size: 1rem; margin-top: 2rem }
.wide { overflow-x: auto } table { border-collapse: collapse } th, td { text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8884 }
td { font-variant-numeric: tabular-nums; white-space: nowrap } figure { margin: 2rem 0 } svg { max-width: 100%; height: auto }
@media (prefers-color-scheme: dark) { body { background: #14171c; color: #d5dae0 } }
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_keep_their_digits() {
        assert_eq!(with_error(2.04936, 0.0284, ""), "2.0494 ± 0.0284");
        assert_eq!(with_error(0.00123, 2e-5, "+"), "+0.0012 ± 0.0000");
        assert_eq!(with_error(-3.641e-8, 4.312e-8, "+"), "-3.64e-8 ± 4.31e-8");
        assert_eq!(with_error(0.0, 0.0, "+"), "+0.0000 ± 0.0000");
    }
}
