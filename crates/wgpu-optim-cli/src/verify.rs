//! `wgpu-optim verify`: how a user learns whether their driver computes correctly, and what they attach to a bug report.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;
use wgpu_optim::verify::{self, Case};
use wgpu_optim::{ParamGroups, Requirements, adapter, wgpu};

use crate::adapters::open;
use crate::bench::Launch;

#[derive(Args)]
pub struct Arguments {
    /// Markdown file to write for a bug report: adapters, drivers, limits, features, versions, and all results.
    #[arg(long, default_value = "wgpu-optim-report.md")]
    report: PathBuf,
    /// How kernels over all coordinates are launched [default: chosen for the adapter].
    #[arg(long, value_enum)]
    shape: Option<Launch>,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

/// How an adapter did.
#[derive(Serialize)]
struct Verdicts {
    adapter: String,
    /// Why nothing runs on it.
    unsupported: Option<String>,
    recipes: Vec<Verdict>,
}

/// How a recipe did on it.
#[derive(Serialize)]
struct Verdict {
    recipe: String,
    cases: usize,
    /// Largest absolute difference from the CPU reference; `null` for NaN.
    max_error: f64,
    /// Coordinates whose side of a threshold rounding decides.
    uncertain: usize,
    failures: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let chosen = std::env::var("WGPU_ADAPTER_NAME").is_ok_and(|name| !name.is_empty());
    // Kept alive: adapters belong to it.
    let (_instance, adapters) = if chosen {
        let (instance, adapter) = pollster::block_on(adapter::from_env())?;
        (instance, vec![adapter])
    } else {
        let instance = adapter::instance();
        let mut adapters = pollster::block_on(adapter::all(&instance));
        if adapters.is_empty() {
            adapters.push(pollster::block_on(adapter::from_env())?.1);
        }
        (instance, adapters)
    };
    let mut report = Report::create(&arguments.report)?;
    let say = |line: String| {
        if !arguments.json {
            println!("{line}");
        }
    };
    let mut all = Vec::new();
    for found in &adapters {
        let mut verdicts =
            Verdicts { adapter: adapter::describe(&found.get_info()), unsupported: None, recipes: Vec::new() };
        say(verdicts.adapter.clone());
        report.adapter(found)?;
        match Requirements::webgpu().check(&found.limits()) {
            Ok(()) => match verify_adapter(found, arguments.shape, &mut report, &say) {
                Ok(recipes) => verdicts.recipes = recipes,
                Err(error) => {
                    report.line(&format!("\n**Stopped:** {error:#}"))?;
                    return Err(error.context(format!("the report is in {}", arguments.report.display())));
                }
            },
            Err(missing) => {
                say(format!("  unsupported: {missing}"));
                report.line(&format!("\nUnsupported: {missing}"))?;
                verdicts.unsupported = Some(missing.to_string());
            }
        }
        all.push(verdicts);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    }
    say(format!("report for an issue: {}", arguments.report.display()));
    let failed = all.iter().flat_map(|of| &of.recipes).filter(|verdict| !verdict.failures.is_empty()).count();
    if failed > 0 {
        bail!("recipes that differ from the CPU reference: {failed}; attach the report to an issue");
    }
    let supported = all.iter().filter(|of| of.unsupported.is_none()).count();
    if supported == 0 {
        bail!("no adapter has the limits that the optimizers need; see above what each lacks");
    }
    say(format!("all recipes pass on {supported} {}", if supported == 1 { "adapter" } else { "adapters" }));
    Ok(())
}

/// Says the rows of an adapter, and returns them.
fn verify_adapter(
    found: &wgpu::Adapter,
    shape: Option<Launch>,
    report: &mut Report,
    say: &dyn Fn(String),
) -> Result<Vec<Verdict>> {
    let (device, queue) = open(found)?;
    let mut recipes: BTreeMap<usize, (String, Vec<Case>)> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for case in verify::cases() {
        let at = order.iter().position(|name| *name == case.name).unwrap_or_else(|| {
            order.push(case.name.clone());
            order.len() - 1
        });
        recipes.entry(at).or_insert_with(|| (case.name.clone(), Vec::new())).1.push(case);
    }
    let sizes: Vec<String> = verify::SIZES.iter().map(usize::to_string).collect();
    let shapes: Vec<String> = verify::SHAPES.iter().map(|[rows, cols]| format!("{rows}x{cols}")).collect();
    for (what, all, tolerance) in
        [("sizes", sizes, verify::TOLERANCE), ("shapes of matrix bases", shapes, verify::MATRIX_TOLERANCE)]
    {
        say(format!("  {what} {}; tolerance {:e} + {:e} |x|", all.join(", "), tolerance.0, tolerance.1));
    }
    say(format!("  {:<32} {:>13} {:>10}", "recipe", "largest error", "uncertain"));
    report.line("\n| recipe | cases | largest error | uncertain | verdict |\n|---|---|---|---|---|")?;
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut verdicts = Vec::new();
    let mut runner = verify::Runner::new(&device, &queue);
    for (name, cases) in recipes.into_values() {
        let (mut largest, mut uncertain, mut failures) = (0.0f64, 0, Vec::new());
        let count = cases.len();
        for case in cases {
            spinner.set_message(format!("{name} at {:?}", case.shape));
            let groups = ParamGroups::from(case.recipe);
            let groups = shape.map_or(groups.clone(), |shape| groups.with_launch_shape(shape.into()));
            let outcome = pollster::block_on(runner.run(&case, groups))?;
            // f64::max would drop a NaN.
            largest =
                if largest < outcome.max_error || outcome.max_error.is_nan() { outcome.max_error } else { largest };
            uncertain += outcome.uncertain;
            failures.extend(outcome.failure.map(|f| format!("shape {:?}: {f}", case.shape)));
        }
        let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
        spinner.suspend(|| {
            say(format!("  {name:<32} {largest:>13.2e} {uncertain:>10} {verdict}"));
            failures.iter().for_each(|failure| say(format!("    {failure}")));
        });
        // At once: a driver may take the process down with the next one.
        let why: String = failures.iter().map(|failure| format!("<br>{failure}")).collect();
        report.line(&format!("| {name} | {count} | {largest:.2e} | {uncertain} | {verdict}{why} |"))?;
        verdicts.push(Verdict { recipe: name, cases: count, max_error: largest, uncertain, failures });
    }
    spinner.finish_and_clear();
    Ok(verdicts)
}

/// The file, written as it goes.
struct Report {
    path: PathBuf,
    file: File,
}

impl Report {
    fn create(path: &std::path::Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("report {}", path.display()))?;
        let mut report = Self { path: path.to_owned(), file };
        let version = env!("CARGO_PKG_VERSION");
        let system = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
        report.line("# wgpu-optim verify\n\n| | |\n|---|---|")?;
        report.line(&format!("| wgpu-optim | {version} |"))?;
        let [wgpu, naga, rustc] = [env!("LOCKED_WGPU"), env!("LOCKED_NAGA"), env!("RUSTC_VERSION")];
        report.line(&format!(
            "| wgpu (Cargo.lock) | {wgpu} |\n| naga (Cargo.lock) | {naga} |\n| compiler | {rustc} |\n| system | {system} |"
        ))?;
        // What chooses drivers, and changes what they do.
        let prefixes = ["WGPU_", "VK_", "MESA_", "LP_", "GALLIUM_", "DRI_", "__GLX_", "LIBGL_"];
        let mut variables: Vec<_> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        variables.sort();
        for (name, value) in variables {
            report.line(&format!("| `{name}` | `{value}` |"))?;
        }
        Ok(report)
    }

    fn adapter(&mut self, found: &wgpu::Adapter) -> Result<()> {
        let info = found.get_info();
        let features: Vec<_> = found.features().iter_names().map(|(name, _)| name).collect();
        self.line(&format!("\n## {}\n", adapter::describe(&info)))?;
        self.line(&format!(
            "Vendor {:#06x}, device {:#06x}, driver `{}` `{}`. Features: {}.",
            info.vendor,
            info.device,
            info.driver,
            info.driver_info,
            features.join(", ")
        ))?;
        let limits = format!("{:#?}", found.limits());
        self.line(&format!("\n<details><summary>Limits</summary>\n\n```text\n{limits}\n```\n\n</details>"))
    }

    fn line(&mut self, text: &str) -> Result<()> {
        writeln!(self.file, "{text}").with_context(|| format!("report {}", self.path.display()))
    }
}
