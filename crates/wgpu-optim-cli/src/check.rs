//! `wgpu-optim check`: compiles a custom optimizer for every platform, reports its cost, and runs it next to AdamW.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::policy::{Mgup, Plain, Policy, Selection};
use wgpu_optim::{Error, GpuOptimizer, PlanLimits, Program, Recipe, TensorSpec, verify};

use crate::adapters::{build, open_chosen, wait};
use crate::numbers::whole;
use crate::recipes;
use crate::translate::{LANGUAGES, translate};

/// Check a custom optimizer: compile it for every platform, report the cost of a step, and run it next to AdamW.
///
/// If the WGSL is not valid, prints the line and column of the first error and exits with 1. Otherwise prints the bytes and dispatches of a
/// step under every policy, or the reason why a policy is refused. A recipe that is not plain is checked only under its own policy. The run
/// takes random gradients. It reports how far the parameters moved and how long a step took, next to AdamW. If a parameter is not finite
/// after the run, exits with 1. The results are not compared with the CPU: for that, provide a twin in Rust, with `CustomBase::twin`.
#[derive(clap::Args)]
pub struct Arguments {
    /// A WGSL file, or a JSON recipe file that holds WGSL or names a WGSL file.
    file: PathBuf,
    /// Number of parameters of the run, 1 to 4294901760.
    #[arg(long, default_value_t = 1 << 20, allow_negative_numbers = true, value_parser = whole::<u64>(1..=0xffff_0000))]
    params: u64,
    /// Number of steps of the run, 1 to 1000000.
    #[arg(long, default_value_t = 20, allow_negative_numbers = true, value_parser = whole::<u64>(1..=1_000_000))]
    steps: u64,
    /// Skip the run, which needs an adapter.
    #[arg(long)]
    no_run: bool,
    /// Print JSON instead of a report.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    name: String,
    /// The languages into which every kernel was translated.
    translated: Vec<&'static str>,
    kernels: usize,
    policies: Vec<Cost>,
    run: Option<Run>,
}

/// The cost of a step under one policy.
#[derive(Serialize)]
struct Cost {
    policy: String,
    dispatches: Option<u64>,
    bytes_per_parameter: Option<f64>,
    state_bytes_per_parameter: Option<f64>,
    /// Why the policy is refused; `None` if it is not.
    refused: Option<String>,
}

/// The results of the optimizer and of AdamW on the same random gradients.
#[derive(Serialize)]
struct Run {
    adapter: String,
    steps: u64,
    parameters: u64,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    lr: f64,
    /// The root mean square of how far parameters moved, divided by the learning rate and by the number of steps.
    moved: f64,
    ns_per_parameter: f64,
    /// The index of the first parameter that is not finite.
    not_finite: Option<usize>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.file;
    let recipe = match recipes::file(path) {
        Ok(recipe) => recipe,
        Err(error) => bail!("{}", shown(path, &error)),
    };
    let own = recipe.name();
    let (policies, kernels) = costs(recipe, arguments.params)?;
    let run = if arguments.no_run { None } else { Some(race(recipe, arguments)?) };
    let translated = LANGUAGES.iter().map(|(language, _)| *language).collect();
    let report = Report { name: own, translated, kernels, policies, run };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", text(&report)?);
    }
    let broken = report.run.iter().flat_map(|run| &run.rows).find(|row| row.not_finite.is_some());
    broken.map_or(Ok(()), |row| bail!("{} produces parameters that are not finite", row.name))
}

/// The message of an error, with the line of WGSL that it is about.
fn shown(path: &std::path::Path, error: &Error) -> String {
    // For a recipe file, the WGSL may be in another file.
    let is_wgsl = path.extension().is_some_and(|ending| ending == "wgsl");
    let Error::Custom { text, line, column, message } = error else { return error.to_string() };
    if !is_wgsl {
        return error.to_string();
    }
    let place = format!("{}:{line}:{column}: {text}: {message}", path.display());
    let source = std::fs::read_to_string(path).unwrap_or_default();
    let Some(source) = source.lines().nth(line - 1) else { return place };
    let source = source.replace('\t', " ");
    format!("{place}\n{line:>5} | {source}\n      | {}^", " ".repeat(column - 1))
}

/// Returns the cost of a step under each policy, and the number of kernels that were translated.
fn costs(recipe: Recipe, params: u64) -> Result<(Vec<Cost>, usize)> {
    let specs = [TensorSpec::new("one", [params as usize])];
    let mut kernels = Vec::new();
    let mut policies = vec![("its own".to_owned(), recipe.policy)];
    if recipe.policy == Policy::from(Plain::default()) {
        let approximate = Mgup::default().selection(Selection::Approximate);
        policies = vec![("plain".to_owned(), recipe.policy)];
        let others =
            [recipe.cautious(), recipe.mgup(), recipe.with_policy(approximate), recipe.cautious_mgup(), recipe.grams()];
        let names = ["cautious", "mgup", "mgup, approximate", "cautious-mgup", "grams"];
        policies.extend(names.into_iter().zip(others).map(|(name, other)| (name.to_owned(), other.policy)));
    }
    let mut all = Vec::new();
    for (policy, with) in policies {
        let recipe = recipe.with_policy(with);
        let cost = match Program::new(&specs, recipe, PlanLimits::LARGE, Matmul::Tiles) {
            Ok(program) => {
                for kernel in program.kernels {
                    if !kernels.contains(&kernel) {
                        translate(&kernel)?;
                        kernels.push(kernel);
                    }
                }
                let cost = program.cost;
                let state = cost.memory - cost.scratch;
                Cost {
                    policy,
                    dispatches: Some(cost.dispatches),
                    bytes_per_parameter: Some(cost.traffic as f64 / params as f64),
                    // Parameters and gradients take 8 bytes.
                    state_bytes_per_parameter: Some((state as f64 / params as f64 - 8.0).max(0.0)),
                    refused: None,
                }
            }
            Err(error) => Cost {
                policy,
                dispatches: None,
                bytes_per_parameter: None,
                state_bytes_per_parameter: None,
                refused: Some(error.to_string()),
            },
        };
        all.push(cost);
    }
    Ok((all, kernels.len()))
}

/// Steps with the recipe and with AdamW in turns, on the same random gradients.
fn race(recipe: Recipe, arguments: &Arguments) -> Result<Run> {
    let (adapter, device, queue) = open_chosen()?;
    let numel = arguments.params as usize;
    let specs = [TensorSpec::new("one", [numel])];
    let begin = verify::params(numel);
    let begun = |recipe: Recipe| -> Result<GpuOptimizer> {
        let optimizer = build(&device, &queue, &specs, recipe)?;
        optimizer.write_param("one", &begin)?;
        Ok(optimizer)
    };
    let recipes = [recipe, Recipe::adamw(1e-3)];
    let mut optimizers = [begun(recipes[0])?, begun(recipes[1])?];
    let mut times = [Vec::new(), Vec::new()];
    for t in 1..=arguments.steps {
        let grads = verify::grads(numel, t);
        for (optimizer, times) in optimizers.iter_mut().zip(&mut times) {
            optimizer.write_grad("one", &grads)?;
            wait(&device)?;
            let start = Instant::now();
            optimizer.step()?;
            wait(&device)?;
            times.push(start.elapsed().as_nanos() as f64 / arguments.params as f64);
        }
    }
    let mut rows = Vec::new();
    for ((recipe, optimizer), mut times) in recipes.into_iter().zip(&optimizers).zip(times) {
        let param = optimizer.read_param_blocking("one")?;
        let squares = param.iter().zip(&begin).map(|(now, begin)| f64::from(now - begin).powi(2)).sum::<f64>();
        times.sort_by(f64::total_cmp);
        rows.push(Row {
            name: recipe.name(),
            lr: recipe.lr(),
            moved: (squares / numel as f64).sqrt() / (recipe.lr() * arguments.steps as f64),
            ns_per_parameter: times[times.len() / 2],
            not_finite: param.iter().position(|x| !x.is_finite()),
        });
    }
    Ok(Run { adapter, steps: arguments.steps, parameters: arguments.params, rows })
}

fn text(report: &Report) -> Result<String> {
    let mut text = String::new();
    let platforms: Vec<_> = LANGUAGES.iter().map(|(language, platform)| format!("{language} ({platform})")).collect();
    writeln!(text, "{}: valid", report.name)?;
    writeln!(text, "{} kernels as {} and WGSL (browsers)", report.kernels, platforms.join(", "))?;
    writeln!(text, "\n{:<20} {:>10} {:>16} {:>16}", "policy", "dispatches", "bytes/parameter", "state/parameter")?;
    for cost in &report.policies {
        match (cost.dispatches, cost.bytes_per_parameter, cost.state_bytes_per_parameter, &cost.refused) {
            (Some(dispatches), Some(bytes), Some(state), _) => {
                writeln!(text, "{:<20} {dispatches:>10} {bytes:>16.2} {state:>16.2}", cost.policy)?;
            }
            (.., refused) => writeln!(text, "{:<20} refused: {}", cost.policy, refused.as_deref().unwrap_or_default())?,
        }
    }
    let Some(run) = &report.run else { return Ok(text) };
    writeln!(text, "\n{} steps of {} parameters on random gradients, on {}", run.steps, run.parameters, run.adapter)?;
    writeln!(text, "{:<24} {:>10} {:>22} {:>14}  results", "", "lr", "moved / (lr × steps)", "ns/parameter")?;
    for row in &run.rows {
        let results = row.not_finite.map_or("finite".to_owned(), |at| format!("NOT FINITE, first at {at}"));
        let Row { name, lr, moved, ns_per_parameter, .. } = row;
        writeln!(text, "{name:<24} {lr:>10} {moved:>22.4} {ns_per_parameter:>14.2}  {results}")?;
    }
    writeln!(text, "Not compared with the CPU: WGSL alone has no CPU twin. Provide one in Rust with `twin`.")?;
    Ok(text)
}
