//! `wgpu-optim verify`: how a user learns whether their driver computes correctly.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use wgpu_optim::verify::{self, Case};
use wgpu_optim::{Requirements, adapter, wgpu};

use crate::adapters::open;

pub fn run() -> Result<()> {
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
    let (mut supported, mut failed) = (0, 0);
    for found in &adapters {
        println!("{}", adapter::describe(&found.get_info()));
        match Requirements::webgpu().check(&found.limits()) {
            Ok(()) => {
                supported += 1;
                failed += verify_adapter(found)?;
            }
            Err(missing) => println!("  unsupported: {missing}"),
        }
    }
    if failed > 0 {
        bail!("{failed} recipes do not hold");
    }
    if supported == 0 {
        bail!("no adapter is supported");
    }
    println!("all recipes hold on {supported} {}", if supported == 1 { "adapter" } else { "adapters" });
    Ok(())
}

/// Prints the rows of an adapter and returns how many failed.
fn verify_adapter(found: &wgpu::Adapter) -> Result<usize> {
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
        println!("  {what} {}; tolerance {:e} + {:e} |x|", all.join(", "), tolerance.0, tolerance.1);
    }
    println!("  {:<32} {:>13} {:>10}", "recipe", "largest error", "uncertain");
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(Duration::from_millis(100));
    let mut failed = 0;
    let mut runner = verify::Runner::new(&device, &queue);
    for (name, cases) in recipes.into_values() {
        let (mut largest, mut uncertain, mut failures) = (0.0f64, 0, Vec::new());
        for case in cases {
            spinner.set_message(format!("{name} at {:?}", case.shape));
            let outcome = pollster::block_on(runner.run(&case, case.recipe))?;
            // f64::max would drop a NaN.
            largest = if largest < outcome.max_error || outcome.max_error.is_nan() {
                outcome.max_error
            } else {
                largest
            };
            uncertain += outcome.uncertain;
            failures.extend(outcome.failure.map(|f| format!("    shape {:?}: {f}", case.shape)));
        }
        let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
        spinner.suspend(|| {
            println!("  {name:<32} {largest:>13.2e} {uncertain:>10} {verdict}");
            failures.iter().for_each(|failure| println!("{failure}"));
        });
        failed += usize::from(!failures.is_empty());
    }
    spinner.finish_and_clear();
    Ok(failed)
}
