//! `wgpu-optim bench`: nanoseconds per parameter, next to a copy of the same size.
//!
//! Machines are noisy: each sample of a recipe is taken next to samples of the copy and of the first recipe, and the
//! ratios are the medians of those pairs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::policy::PolicyKind;
use wgpu_optim::{Cost, GpuOptimizer, LaunchShape, ParamGroups, Requirements, TensorSpec, verify, wgpu};

use crate::adapters::{build, open_chosen, wait};
use crate::numbers::whole;
use crate::report::{self, Copy, Report, Row};
use crate::settings;
use crate::shapes::Shapes;
use crate::sweep;
use crate::timer::Timer;

/// Measure nanoseconds per parameter of every recipe, next to a plain copy.
#[derive(clap::Args)]
pub struct Arguments {
    /// Number of parameters in the one tensor, 1 to 4294901760.
    #[arg(long, default_value_t = 1 << 24, allow_negative_numbers = true, value_parser = whole::<u64>(1..=0xffff_0000))]
    params: u64,
    /// A model instead of one tensor: `gpt` (148 tensors, 12.6 million parameters), or shapes with their counts, as in
    /// 288x864*12,288*25.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "params")]
    tensors: Option<Shapes>,
    /// Recipes, separated by commas: presets, JSON files or WGSL files. Settings may follow a name, as in adamw+clip+skip: clip (gradient
    /// norm to 1), limit (gradients to ±1), skip (steps with non-finite gradients), scaler (loss scale), observe (telemetry of
    /// every step; observe50: of every 50th), accumulate (two micro-batches), average (of the
    /// parameters), 8bit (state), f16, bf16, and after bf16 split (masters), stochastic or nearest (without f32 masters).
    #[arg(
        long,
        value_delimiter = ',',
        value_parser = settings::named,
        default_value = "adamw,cautious-adamw,mgup-adamw,mgup-adamw-approximate,cautious-mgup-adamw,grams,lion,cautious-lion,mgup-lion"
    )]
    recipes: Vec<(String, ParamGroups)>,
    /// Samples per recipe, at least 1. Their median is reported.
    #[arg(long, default_value_t = 7, allow_negative_numbers = true, value_parser = whole::<u32>(1..=u32::MAX.into()))]
    samples: u32,
    /// How the matrix products of matrix bases are computed [default: chosen for the adapter].
    #[arg(long, value_enum)]
    matmul: Option<Products>,
    /// How kernels over all coordinates are launched [default: chosen for the adapter].
    #[arg(long, value_enum)]
    shape: Option<Launch>,
    /// Measure sizes from a thousand parameters up to `--params` instead, and draw them into this SVG file.
    #[arg(long, value_name = "FILE", conflicts_with = "tensors")]
    plot: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Products {
    /// In registers, for software adapters
    Registers,
    /// In registers, shared across subgroups of 8, for software adapters
    Subgroups,
    /// In tiles of workgroup memory, for GPUs: in blocks of 128 if there are many, in blocks of 64 otherwise
    Tiles,
    /// In blocks of 64, four invocations for each sum
    SmallTiles,
    /// In blocks of 128
    LargeTiles,
    /// In blocks of 128 whose factors are rounded to f16, with f32 sums
    TilesF16,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Launch {
    /// 32 invocations per workgroup, each in a loop, for software adapters
    Cpu,
    /// 256 invocations per workgroup, without a loop, for GPUs
    Gpu,
}

impl From<Launch> for LaunchShape {
    fn from(launch: Launch) -> Self {
        match launch {
            Launch::Cpu => Self::Cpu,
            Launch::Gpu => Self::Gpu,
        }
    }
}

impl From<Products> for Matmul {
    fn from(products: Products) -> Self {
        match products {
            Products::Registers => Self::Registers,
            Products::Subgroups => Self::Subgroups,
            Products::Tiles => Self::Tiles,
            Products::SmallTiles => Self::SmallTiles,
            Products::LargeTiles => Self::LargeTiles,
            Products::TilesF16 => Self::TilesF16,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let recipes = arguments.recipes.clone();
    let one = || vec![vec![arguments.params as usize]];
    let shapes = arguments.tensors.as_ref().map_or_else(one, |shapes| shapes.0.clone());
    // Before an adapter is opened.
    let option = if arguments.tensors.is_some() { "--tensors" } else { "--params" };
    for (name, groups) in &recipes {
        let requirements = Requirements::new(&specs(&shapes), groups.clone());
        requirements.with_context(|| format!("{name} cannot step these {option}"))?;
    }
    let (adapter, device, queue) = open_chosen()?;
    let (matmul, shape) = (arguments.matmul.map(Matmul::from), arguments.shape.map(LaunchShape::from));
    let bench = Bench { adapter, device, queue, recipes, matmul, shape, samples: arguments.samples };
    let reports = match &arguments.plot {
        Some(file) => {
            let sizes = sweep::sizes(arguments.params);
            let progress = progress(sizes.len() * (bench.recipes.len() + 1));
            let report = |&size: &u64| bench.measure(&specs(&[vec![size as usize]]), &progress);
            let reports: Vec<_> = sizes.iter().map(report).collect::<Result<_>>()?;
            progress.finish_and_clear();
            sweep::draw(file, &reports).with_context(|| format!("{}", file.display()))?;
            reports
        }
        None => {
            let progress = progress(bench.recipes.len() + 1);
            let report = bench.measure(&specs(&shapes), &progress)?;
            progress.finish_and_clear();
            vec![report]
        }
    };
    if arguments.json {
        match &reports[..] {
            [report] => println!("{}", serde_json::to_string_pretty(report)?),
            reports => println!("{}", serde_json::to_string_pretty(reports)?),
        }
    } else {
        reports.iter().for_each(report::print);
    }
    Ok(())
}

pub fn specs(shapes: &[Vec<usize>]) -> Vec<TensorSpec> {
    shapes.iter().enumerate().map(|(i, shape)| TensorSpec::new(i.to_string(), shape.clone())).collect()
}

fn progress(steps: usize) -> ProgressBar {
    let progress = ProgressBar::new(steps as u64);
    progress.enable_steady_tick(Duration::from_millis(100));
    progress
}

struct Bench {
    adapter: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    recipes: Vec<(String, ParamGroups)>,
    matmul: Option<Matmul>,
    shape: Option<LaunchShape>,
    samples: u32,
}

impl Bench {
    fn measure(&self, specs: &[TensorSpec], progress: &ProgressBar) -> Result<Report> {
        let Self { device, queue, .. } = self;
        // Before the host allocates as much.
        for (_, groups) in &self.recipes {
            Requirements::new(specs, groups.clone())?.check(&device.limits())?;
        }
        let params: u64 = specs.iter().map(TensorSpec::numel).sum();
        progress.set_message("copy");
        let copy = CopyKernel::best(device, queue, params)?;
        progress.inc(1);
        let mut copies = Vec::new();
        let mut rows = Vec::new();
        let one_tensor = [TensorSpec::new("one", [params as usize])];
        let (values, grads) = (verify::params(params as usize), verify::grads(params as usize, 1));
        let filled = |specs: &[TensorSpec], groups: &ParamGroups| -> Result<GpuOptimizer> {
            let own = groups.clone();
            let own = self.matmul.map_or(own.clone(), |matmul| own.with_matmul(matmul));
            let own = self.shape.map_or(own.clone(), |shape| own.with_launch_shape(shape));
            let optimizer = build(device, queue, specs, own)?;
            for spec in specs {
                optimizer.write_param(&spec.name, &values[..spec.numel() as usize])?;
                optimizer.write_grad(&spec.name, &grads[..spec.numel() as usize])?;
            }
            Ok(optimizer)
        };
        let timer = Timer::new(device, queue);
        let mut first = filled(specs, &self.recipes[0].1)?;
        sample(device, 2, &mut || Ok(first.step().map(drop)?))?;
        for (name, groups) in &self.recipes {
            progress.set_message(name.clone());
            let mut optimizer = filled(specs, groups)?;
            // For a matrix base there is no such thing.
            let one_tensor = (specs.len() > 1 && groups.recipes()[0].fallback().is_none()).then_some(&one_tensor);
            let mut one = one_tensor.map(|one| filled(one, groups)).transpose()?;
            if let Some(one) = &mut one {
                sample(device, 2, &mut || Ok(one.step().map(drop)?))?;
            }
            let repeat = calibrate(device, &mut || Ok(optimizer.step().map(drop)?))?;
            let [mut steps, mut hosts, mut gpus] = [const { Vec::new() }; 3];
            let mut ratios = Vec::new();
            let mut ratios_to_first = Vec::new();
            let mut ratios_to_one = Vec::new();
            let (mut candidates, mut missed, mut looked_at) = (0, 0, 0);
            for _ in 0..self.samples {
                let copied = sample(device, copy.repeat, &mut || copy.submit(device, queue))? / copy.params;
                let stepped = sample(device, repeat, &mut || Ok(optimizer.step().map(drop)?))? / params as f64;
                hosts.push(host_time(device, || Ok(optimizer.step().map(drop)?))?);
                if let Some(timer) = &timer {
                    gpus.push(
                        timer.time(device, queue, &mut |encoder| Ok(optimizer.record(encoder)?))? / params as f64,
                    );
                }
                copies.push(copied);
                steps.push(stepped);
                ratios.push(stepped / copied);
                let time = sample(device, repeat, &mut || Ok(first.step().map(drop)?))?;
                ratios_to_first.push(stepped / (time / params as f64));
                if let Some(one) = &mut one {
                    let time = sample(device, repeat, &mut || Ok(one.step().map(drop)?))?;
                    ratios_to_one.push(stepped / (time / params as f64));
                }
                candidates = 0;
                let samples = |spec: &&TensorSpec| {
                    let policy = optimizer.groups().recipe_of(spec).policy;
                    PolicyKind::of(&policy, spec.numel()).samples()
                };
                for spec in optimizer.specs().filter(samples) {
                    let selected = optimizer.read_selected_blocking(&spec.name)?;
                    candidates += selected.candidates;
                    missed += u64::from(selected.missed);
                    looked_at += 1;
                }
            }
            let ns_per_param = median(steps);
            let Cost { dispatches, traffic, flops, .. } = optimizer.cost();
            rows.push(Row {
                name: name.clone(),
                ns_per_param,
                gpu_ns_per_param: timer.is_some().then(|| median(gpus)),
                host_microseconds: median(hosts),
                dispatches,
                bytes_per_param: traffic as f64 / params as f64,
                ratio_to_copy: median(ratios),
                ratio_to_first: median(ratios_to_first),
                ratio_to_one_tensor: one.is_some().then(|| median(ratios_to_one)),
                gflops: (flops > 0.0).then(|| flops / (ns_per_param * params as f64)),
                candidates: candidates as f64 / params as f64,
                missed,
                looked_at,
            });
            progress.inc(1);
        }
        Ok(Report {
            adapter: self.adapter.clone(),
            tensors: specs.len(),
            params,
            copy: Copy { ns_per_param: median(copies), params_per_workgroup: 4 * u64::from(copy.run) },
            recipes: rows,
        })
    }
}

/// The copy kernel with the best run length of those tried.
struct CopyKernel {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    /// Coordinates that it copies: all, or as many as one binding holds.
    params: f64,
    run: u32,
    workgroups: [u32; 2],
    repeat: u32,
}

impl CopyKernel {
    fn best(device: &wgpu::Device, queue: &wgpu::Queue, params: u64) -> Result<Self> {
        let bytes = params.next_multiple_of(4) * 4;
        let limits = device.limits();
        // A larger copy than one binding would be several of these.
        let bytes = bytes.min(limits.max_storage_buffer_binding_size).min(limits.max_buffer_size) & !15;
        let buffers = ["p", "g"].map(|name| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(&format!("wgpu-optim.bench.{name}")),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("wgpu-optim.bench.copy"),
            source: wgpu::ShaderSource::Wgsl(wgpu_optim::COPY.into()),
        });
        let mut best: Option<(f64, Self)> = None;
        for run in [256u32, 512, 1024, 2048, 4096, 16384] {
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("wgpu-optim.bench.copy"),
                layout: None,
                module: &module,
                entry_point: Some("copy"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &[("RUN", f64::from(run))],
                    ..Default::default()
                },
                cache: None,
            });
            let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("wgpu-optim.bench.copy"),
                layout: &pipeline.get_bind_group_layout(0),
                entries: &[0, 1].map(|binding| wgpu::BindGroupEntry {
                    binding,
                    resource: buffers[binding as usize].as_entire_binding(),
                }),
            });
            let workgroups = u32::try_from((bytes / 16).div_ceil(u64::from(run)))?;
            let x = workgroups.min(limits.max_compute_workgroups_per_dimension);
            let mut kernel = Self {
                pipeline,
                group,
                params: bytes as f64 / 4.0,
                run,
                workgroups: [x, workgroups.div_ceil(x)],
                repeat: 1,
            };
            kernel.repeat = calibrate(device, &mut || kernel.submit(device, queue))?;
            let times = (0..3).map(|_| sample(device, kernel.repeat, &mut || kernel.submit(device, queue)));
            let time = median(times.collect::<Result<_>>()?);
            if best.as_ref().is_none_or(|(fastest, _)| time < *fastest) {
                best = Some((time, kernel));
            }
        }
        Ok(best.expect("several were tried").1)
    }

    fn submit(&self, device: &wgpu::Device, queue: &wgpu::Queue) -> Result<()> {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups[0], self.workgroups[1], 1);
        drop(pass);
        queue.submit([encoder.finish()]);
        Ok(())
    }
}

/// How many submits make a sample of some 50 ms, after warming up.
fn calibrate(device: &wgpu::Device, submit: &mut impl FnMut() -> Result<()>) -> Result<u32> {
    sample(device, 1, submit)?;
    let nanoseconds = sample(device, 2, submit)?;
    Ok((5e7 / nanoseconds).clamp(1.0, 100.0) as u32)
}

/// Nanoseconds of one of `repeat` submits.
fn sample(device: &wgpu::Device, repeat: u32, submit: &mut impl FnMut() -> Result<()>) -> Result<f64> {
    wait(device)?;
    let start = Instant::now();
    for _ in 0..repeat {
        submit()?;
    }
    wait(device)?;
    Ok(start.elapsed().as_nanos() as f64 / f64::from(repeat))
}

/// Microseconds that the host needs for one submit to an idle device.
fn host_time(device: &wgpu::Device, submit: impl FnOnce() -> Result<()>) -> Result<f64> {
    wait(device)?;
    let start = Instant::now();
    submit()?;
    Ok(start.elapsed().as_nanos() as f64 / 1e3)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
