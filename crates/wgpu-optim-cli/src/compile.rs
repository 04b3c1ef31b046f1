//! `wgpu-optim compile`: builds every pipeline of some recipes, and runs none.

use std::io::Write;
use std::time::Instant;

use anyhow::{Result, bail};
use serde::Serialize;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::program::Kernel;
use wgpu_optim::{LaunchShape, ParamGroups, PlanLimits, Program, adapter, wgpu};
use wgpu_optim_cache::PipelineCache;

use crate::adapters::open_chosen;
use crate::bench::{Launch, Products, specs};
use crate::settings;
use crate::shapes::Shapes;

/// Build every pipeline of some recipes on the chosen adapter, and report times and failures.
///
/// Runs no pipeline, so the driver may be one without hardware. A kernel that several recipes share is built once. Prints one line per
/// kernel as soon as it is built, after what the driver says about it. Exits with 1 if the driver refuses a kernel.
#[derive(clap::Args)]
pub struct Arguments {
    /// Recipes, separated by commas: presets, JSON files or WGSL files. Settings may follow a name: see `bench --help`.
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = settings::named,
        default_value = "adamw,cautious-adamw,mgup-adamw,mgup-adamw-approximate,adamw+clip,muon"
    )]
    recipes: Vec<(String, ParamGroups)>,
    /// Shapes of tensors with their counts, as in 288x864*12,288*25, or `gpt`. By default a matrix, a vector, and a tensor that one workgroup
    /// steps.
    #[arg(long, allow_hyphen_values = true, default_value = "512x512,5001,100")]
    tensors: Shapes,
    /// How the matrix products of matrix bases are computed [default: chosen for the adapter].
    #[arg(long, value_enum)]
    matmul: Option<Products>,
    /// How kernels over all coordinates are launched [default: chosen for the adapter].
    #[arg(long, value_enum)]
    shape: Option<Launch>,
    /// Use the pipelines of earlier runs, and keep these for later ones, as `bench`, `check`, `demo` and `replay` do.
    #[arg(long)]
    cached: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    kernels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    /// The first recipe that has it.
    recipe: String,
    kernel: String,
    milliseconds: f64,
    /// Why the driver refuses it; `None` if it does not.
    failure: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (name, device, _queue) = open_chosen()?;
    let matmul = arguments.matmul.map_or_else(|| adapter::matmul(&device), Matmul::from);
    let shape = arguments.shape.map_or_else(|| adapter::launch_shape(&device), LaunchShape::from);
    let limits = device.limits();
    let limits = PlanLimits { binding: limits.max_storage_buffer_binding_size, buffer: limits.max_buffer_size };
    if !arguments.json {
        println!("{name}");
    }
    let cache = arguments.cached.then(|| PipelineCache::open_default(&device)).flatten();
    let mut known: Vec<Kernel> = Vec::new();
    let mut rows = Vec::new();
    for (recipe, groups) in &arguments.recipes {
        let groups = groups.clone().with_launch_shape(shape);
        let program = Program::new(&specs(&arguments.tensors.0), groups, limits, matmul)?;
        for kernel in program.kernels {
            if known.contains(&kernel) {
                continue;
            }
            let row = compile(&device, recipe, &kernel, cache.as_ref());
            if !arguments.json {
                let said = row.failure.as_ref().map_or(String::new(), |failure| format!("  FAILED: {failure}"));
                println!("{:>9.1} ms  {:<24} {recipe}{said}", row.milliseconds, kernel.name);
                // Before what the driver says about the next.
                std::io::stdout().flush()?;
            }
            known.push(kernel);
            rows.push(row);
        }
    }
    if let Some(cache) = cache {
        cache.save_or_warn();
    }
    let failed = rows.iter().filter(|row| row.failure.is_some()).count();
    let total: f64 = rows.iter().map(|row| row.milliseconds).sum();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&Report { adapter: name, kernels: rows })?);
    } else {
        println!("{} kernels in {:.1} s", known.len(), total / 1e3);
    }
    if failed > 0 {
        bail!("kernels that the driver refuses: {failed}");
    }
    Ok(())
}

/// Builds a kernel's pipeline.
fn compile(device: &wgpu::Device, recipe: &str, kernel: &Kernel, cache: Option<&PipelineCache>) -> Row {
    let scopes = [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal].map(|kind| device.push_error_scope(kind));
    let start = Instant::now();
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(&kernel.name),
        source: wgpu::ShaderSource::Wgsl(kernel.source.as_str().into()),
    });
    let constants: Vec<_> = kernel.constants.iter().map(|(name, &value)| (name.as_str(), value)).collect();
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&kernel.name),
        layout: None,
        module: &module,
        entry_point: Some(&kernel.entry_point),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &constants,
            // As the library builds them.
            zero_initialize_workgroup_memory: false,
        },
        cache: cache.map(PipelineCache::handle),
    });
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    drop(pipeline);
    let errors = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
    let failure = errors.flatten().next().map(|error| error.to_string());
    Row { recipe: recipe.to_owned(), kernel: kernel.name.clone(), milliseconds, failure }
}
