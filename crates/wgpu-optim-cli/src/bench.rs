//! `wgpu-optim bench`: nanoseconds per parameter, beside a copy on the same buffers' size.
//!
//! Machines are noisy: each sample of a recipe is taken next to a sample of the copy, and the ratio is the median of
//! those pairs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::ProgressBar;
use serde::Serialize;
use wgpu_optim::{GpuOptimizer, Recipe, Requirements, TensorSpec, kernel, verify, wgpu};

use crate::adapters::{open_chosen, wait};

/// Measure nanoseconds per parameter of every recipe beside a plain copy.
#[derive(clap::Args)]
pub struct Arguments {
    /// Parameters, in one tensor.
    #[arg(long, default_value_t = 1 << 24, value_parser = clap::value_parser!(u64).range(1..=0xffff_0000))]
    params: u64,
    /// Recipes, by preset name, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "adamw,cautious-adamw,mgup-adamw,mgup-adamw-approximate,cautious-mgup-adamw,grams,lion,cautious-lion,mgup-lion"
    )]
    recipes: Vec<String>,
    /// Samples of each; the median counts.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    adapter: String,
    params: u64,
    copy: Copy,
    recipes: Vec<Row>,
}

#[derive(Serialize)]
struct Copy {
    ns_per_param: f64,
    params_per_workgroup: u64,
}

#[derive(Serialize)]
struct Row {
    name: String,
    ns_per_param: f64,
    dispatches: usize,
    bytes_per_param: f64,
    ratio_to_copy: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let recipes: Vec<(String, Recipe)> = arguments
        .recipes
        .iter()
        .map(|name| Ok((name.clone(), name.parse::<Recipe>()?)))
        .collect::<Result<_>>()?;
    ensure!(!recipes.is_empty(), "--recipes names no recipe");
    let (adapter, device, queue) = open_chosen()?;
    // Before the host allocates as much.
    let spec = [TensorSpec::new("tensor", [usize::try_from(arguments.params)?])];
    for (_, recipe) in &recipes {
        Requirements::new(&spec, *recipe)?.check(&device.limits())?;
    }
    let progress = ProgressBar::new(recipes.len() as u64 + 1);
    progress.enable_steady_tick(Duration::from_millis(100));

    progress.set_message("copy");
    let numel = usize::try_from(arguments.params).context("--params")?;
    let copy = CopyKernel::best(&device, &queue, arguments.params)?;
    progress.inc(1);
    let mut copies = Vec::new();
    let mut rows = Vec::new();
    let (params, grads) = (verify::params(numel), verify::grads(numel, 1));
    for (name, recipe) in recipes {
        progress.set_message(name.clone());
        let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &spec, recipe)?;
        optimizer.write_param("tensor", &params)?;
        optimizer.write_grad("tensor", &grads)?;
        let mut step = || -> Result<()> {
            optimizer.step()?;
            Ok(())
        };
        let repeat = calibrate(&device, &mut step)?;
        let mut steps = Vec::new();
        let mut ratios = Vec::new();
        for _ in 0..arguments.samples {
            let copied = sample(&device, copy.repeat, &mut || copy.submit(&device, &queue))? / copy.params;
            let stepped = sample(&device, repeat, &mut step)? / arguments.params as f64;
            copies.push(copied);
            steps.push(stepped);
            ratios.push(stepped / copied);
        }
        rows.push(Row {
            name,
            ns_per_param: median(steps),
            dispatches: optimizer.schedule().dispatches.len(),
            bytes_per_param: optimizer.schedule().bytes() as f64 / arguments.params as f64,
            ratio_to_copy: median(ratios),
        });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let report = Report {
        adapter,
        params: arguments.params,
        copy: Copy { ns_per_param: median(copies), params_per_workgroup: 4 * u64::from(copy.run) },
        recipes: rows,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(())
}

fn print(report: &Report) {
    println!("{}, {} parameters", report.adapter, report.params);
    println!("{:<26} {:>9} {:>10} {:>11} {:>8}", "", "ns/param", "dispatches", "bytes/param", "× copy");
    println!("{:<26} {:>9.3} {:>10} {:>11.2} {:>8.2}", "copy", report.copy.ns_per_param, 1, 8.0, 1.0);
    for row in &report.recipes {
        println!(
            "{:<26} {:>9.3} {:>10} {:>11.2} {:>8.2}",
            row.name, row.ns_per_param, row.dispatches, row.bytes_per_param, row.ratio_to_copy
        );
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
            source: wgpu::ShaderSource::Wgsl(kernel::COPY.into()),
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
