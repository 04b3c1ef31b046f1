//! `wgpu-optim explain`: what a step does on the GPU, dispatch by dispatch. It opens no device.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use wgpu_optim::program::{Binding, Bound, Dispatch, Program, SEARCHED, When};
use wgpu_optim::{ParamGroups, PlanLimits, TensorSpec};

use crate::bench::{Launch, Products, specs};
use crate::numbers::whole;
use crate::settings;
use crate::shapes::Shapes;

/// Print what a step does: each dispatch with what it reads and writes, and what it costs.
///
/// Opens no device. Prints one line per dispatch: its kernel in shaders/, its workgroups, the lanes (invocations) of each, the largest
/// number of rounds of memory accesses that one lane makes in sequence, the bytes that it moves for the expected number of
/// candidates, and the buffers that it reads and writes. The dispatch's own tables are left out.
#[derive(clap::Args)]
pub struct Arguments {
    /// A preset's name, a JSON recipe file or a WGSL file; settings may follow, as in mgup-adamw+clip+skip: see `bench --help`.
    #[arg(value_parser = settings::named)]
    recipe: (String, ParamGroups),
    /// Number of parameters in the one tensor, 1 to 4294901760.
    #[arg(long, default_value_t = 1 << 24, allow_negative_numbers = true, value_parser = whole::<u64>(1..=0xffff_0000))]
    params: u64,
    /// A model instead: `gpt` (148 tensors, 12.6 million parameters), or shapes with their counts, as in 288x864*12,288*25.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "params")]
    tensors: Option<Shapes>,
    /// A model as a JSON file: a list of tensors, each with a `name` and a `shape`, and optionally `group`, `layout` and
    /// `components`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["params", "tensors"])]
    specs: Option<PathBuf>,
    /// The limits of the device that the step is planned for.
    #[arg(long, value_enum, default_value_t = Limits::Large)]
    limits: Limits,
    /// How the matrix products of matrix bases are computed.
    #[arg(long, value_enum, default_value_t = Products::Tiles)]
    matmul: Products,
    /// How kernels over all coordinates are launched.
    #[arg(long, value_enum, default_value_t = Launch::Gpu)]
    shape: Launch,
    /// Print the WGSL of one kernel instead, by its name in the table.
    #[arg(long, value_name = "KERNEL", conflicts_with = "json")]
    wgsl: Option<String>,
    /// Print JSON instead of a table: tensors, buffers, kernels with their WGSL, dispatches. docs/program.md describes it.
    #[arg(long)]
    json: bool,
    /// With --json, also print what another program needs to run the first steps: the contents of tables, and the scalars of so many
    /// steps.
    #[arg(long, value_name = "STEPS", requires = "json", value_parser = whole::<u64>(1..=1_000_000))]
    run: Option<u64>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Limits {
    /// WebGPU's defaults: bindings of 128 MiB, buffers of 256 MiB
    Webgpu,
    /// The limits of most GPUs: bindings of 2 GiB, buffers of 4 GiB
    Large,
}

/// A dispatch with the names of what it reads and writes.
#[derive(Serialize)]
struct Explained<'a> {
    #[serde(flatten)]
    dispatch: &'a Dispatch,
    name: &'a str,
    reads: Vec<&'a str>,
    writes: Vec<&'a str>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let specs = match (&arguments.specs, &arguments.tensors) {
        (Some(file), _) => {
            let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
            serde_json::from_str::<Vec<TensorSpec>>(&text).with_context(|| format!("{}", file.display()))?
        }
        (None, Some(shapes)) => specs(&shapes.0),
        (None, None) => specs(&[vec![arguments.params as usize]]),
    };
    let limits = match arguments.limits {
        Limits::Webgpu => PlanLimits::WEBGPU,
        Limits::Large => PlanLimits::LARGE,
    };
    let (name, groups) = &arguments.recipe;
    let mut program = Program::new(
        &specs,
        groups.clone().with_launch_shape(arguments.shape.into()),
        limits,
        arguments.matmul.into(),
    )?;
    if let Some(wanted) = &arguments.wgsl {
        let Some(kernel) = program.kernels.iter().find(|kernel| kernel.name == *wanted) else {
            let known: BTreeSet<_> = program.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            bail!("no kernel `{wanted}` in this step; it has {}", Vec::from_iter(known).join(", "));
        };
        return put(&kernel.source);
    }
    if arguments.run.is_none() {
        // Tables are as long as the model is large.
        program.buffers.iter_mut().for_each(|buffer| buffer.contents = Vec::new());
    }
    if arguments.json {
        let mut json = serde_json::to_value(&program)?;
        json["dispatches"] = serde_json::to_value(explained(&program))?;
        let steps = 1..=arguments.run.unwrap_or(0);
        let steps = steps.map(|t| Program::scalars_at(groups, t, 1.0)).collect::<Result<Vec<_>, _>>()?;
        if !steps.is_empty() {
            json["steps"] = serde_json::to_value(steps)?;
        }
        put(&format!("{}\n", serde_json::to_string_pretty(&json)?))
    } else {
        put(&table(name, &specs, &program)?)
    }
}

/// Prints a text, of which a reader may want the beginning only.
fn put(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn explained(program: &Program) -> Vec<Explained<'_>> {
    program.dispatches.iter().map(|dispatch| explain(program, dispatch)).collect()
}

fn explain<'a>(program: &'a Program, dispatch: &'a Dispatch) -> Explained<'a> {
    let kernel = &program.kernels[dispatch.kernel];
    let is_rated = kernel.constants.get("RATED") == Some(&1.0);
    let names = |wanted: fn(&Bound) -> bool| {
        let bound = dispatch.bindings.iter().zip(&kernel.bindings).filter(|(bound, _)| wanted(bound));
        // The name of the kernel's variable says what a scratch buffer holds.
        let name = |(bound, binding): (&Bound, &'a Binding)| {
            let label = program.buffers[bound.buffer].label.rsplit('.').next().unwrap_or_default();
            if label == "scratch" { binding.name.as_str() } else { label }
        };
        let mut names: Vec<_> = bound.map(name).collect();
        names.retain(|name| !["grids", "scalars", "chunks"].contains(name) && (is_rated || *name != "rates"));
        names
    };
    let (reads, writes) = (names(|bound| bound.reads), names(|bound| bound.writes));
    Explained { dispatch, name: &kernel.name, reads, writes }
}

fn table(name: &str, specs: &[TensorSpec], program: &Program) -> Result<String> {
    let mut text = String::new();
    let all = explained(program);
    let tensors = if specs.len() == 1 { "1 tensor".to_owned() } else { format!("{} tensors", specs.len()) };
    writeln!(text, "{name}: {tensors}, {} parameters", program.parameters)?;
    let width = all.iter().map(|one| one.dispatch.purpose.len()).max().unwrap_or(0);
    let names = all.iter().map(|one| one.name.len()).max().unwrap_or(0);
    writeln!(
        text,
        "{:>4}  {:width$}  {:names$}  {:>14}  {:>5}  {:>6}  {:>10}  reads → writes",
        "", "purpose", "kernel", "workgroups", "lanes", "rounds", "bytes"
    )?;
    for (number, one) in (1..).zip(&all) {
        let dispatch = one.dispatch;
        let [x, y, z] = dispatch.workgroups;
        let workgroups = match (y, z) {
            (1, 1) => x.to_string(),
            (_, 1) => format!("{x}×{y}"),
            _ => format!("{x}×{y}×{z}"),
        };
        let when = match dispatch.when {
            When::Step if dispatch.after_miss => "  ends at once without a miss".to_owned(),
            When::Step => String::new(),
            when => format!("  {when}"),
        };
        writeln!(
            text,
            "{number:>4}  {:width$}  {:names$}  {workgroups:>14}  {:>5}  {:>6}  {:>10}  {} → {}{when}",
            dispatch.purpose,
            one.name,
            dispatch.lanes,
            dispatch.serial_rounds,
            bytes(dispatch.bytes),
            one.reads.join(", "),
            one.writes.join(", "),
        )?;
    }
    let step: Vec<_> = program.step().collect();
    let missed = step.iter().filter(|dispatch| dispatch.after_miss).count();
    let memory: u64 = program.buffers.iter().map(|buffer| buffer.size).sum();
    let per_parameter = |bytes: u64| bytes as f64 / program.parameters as f64;
    writeln!(
        text,
        "A step has {} dispatch{}{}. It moves {} ({:.2} bytes per parameter). The buffers take {} ({:.2} bytes per parameter).",
        step.len(),
        if step.len() == 1 { "" } else { "es" },
        if missed > 0 {
            format!(
                ", {missed} of which end at once unless a bracket missed: a tensor has more than {SEARCHED} coordinates or does not fit into one binding"
            )
        } else {
            String::new()
        },
        bytes(program.cost.traffic),
        per_parameter(program.cost.traffic),
        bytes(memory),
        per_parameter(memory),
    )?;
    let kinds: Vec<_> = KINDS
        .into_iter()
        .map(|(kind, labels)| {
            let own = program.buffers.iter().filter(|buffer| kind_of(&buffer.label) == labels);
            (kind, own.map(|buffer| buffer.size).sum::<u64>())
        })
        .filter(|(_, size)| *size > 0)
        .map(|(kind, size)| format!("{kind} {:.2}", per_parameter(size)))
        .collect();
    writeln!(text, "Bytes per parameter: {}.", kinds.join(", "))?;
    Ok(text)
}

/// Kinds of buffers, and the beginnings of their labels. The last kind has all other buffers.
const KINDS: [(&str, &str); 9] = [
    ("parameters", "arena.param"),
    ("gradients", "arena.grad"),
    ("state", "state"),
    ("masters", "master"),
    ("averages", "average"),
    ("sums of micro-batches", "sum"),
    ("copies for telemetry", "snapshot"),
    ("rates of components", "rates"),
    ("tables and scratch", ""),
];

/// The beginning of a label, as `KINDS` has it.
fn kind_of(label: &str) -> &'static str {
    let label = label.strip_prefix("wgpu-optim.").unwrap_or(label);
    KINDS.iter().map(|(_, start)| *start).find(|start| label.starts_with(start)).unwrap_or_default()
}

/// Bytes for people.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
