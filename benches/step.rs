//! A step of each recipe beside a copy, per parameter: `cargo bench`.
//!
//! The adapter is the one that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose. `wgpu-optim bench` measures the same with
//! paired samples and prints ratios.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wgpu_optim::{GpuOptimizer, Recipe, Requirements, TensorSpec, adapter, verify, wgpu};

const SIZES: [usize; 2] = [1 << 20, 1 << 24];
const RECIPES: [&str; 6] = ["adamw", "cautious-adamw", "mgup-adamw", "mgup-adamw-approximate", "grams", "lion"];

fn wait(device: &wgpu::Device) {
    device.poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
}

fn step(criterion: &mut Criterion) {
    let (_instance, found) = pollster::block_on(adapter::from_env()).expect("an adapter");
    println!("adapter: {}", adapter::describe(&found.get_info()));
    let required_features = Requirements::optional_features(found.features());
    let required_limits = Requirements::webgpu().device_limits(&found.limits()).expect("WebGPU's limits");
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    let (device, queue) = pollster::block_on(found.request_device(&descriptor)).expect("a device");

    let mut group = criterion.benchmark_group("step");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    for numel in SIZES {
        group.throughput(Throughput::Elements(numel as u64));
        let (params, grads) = (verify::params(numel), verify::grads(numel, 1));
        let copy = Copy::new(&device, numel);
        group.bench_function(BenchmarkId::new("copy", numel), |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    copy.submit(&device, &queue);
                    wait(&device);
                }
                start.elapsed()
            });
        });
        for name in RECIPES {
            let recipe: Recipe = name.parse().expect("a preset");
            let spec = [TensorSpec::new("tensor", [numel])];
            let mut optimizer = GpuOptimizer::new_blocking(&device, &queue, &spec, recipe).expect("an optimizer");
            optimizer.write_param("tensor", &params).expect("a parameter");
            optimizer.write_grad("tensor", &grads).expect("a gradient");
            group.bench_function(BenchmarkId::new(name, numel), |bencher| {
                bencher.iter_custom(|iterations| {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        optimizer.step().expect("a step");
                        wait(&device);
                    }
                    start.elapsed()
                });
            });
        }
    }
    group.finish();
}

/// p[i] = g[i], 8 bytes a parameter, at the run length of the stream kernels.
struct Copy {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    workgroups: u32,
}

impl Copy {
    const RUN: u32 = 1024;

    fn new(device: &wgpu::Device, numel: usize) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(wgpu_optim::COPY.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[("RUN", f64::from(Self::RUN))],
                ..Default::default()
            },
            cache: None,
        });
        let buffers = [0, 1].map(|_| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * numel as u64,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[0, 1].map(|binding| wgpu::BindGroupEntry {
                binding,
                resource: buffers[binding as usize].as_entire_binding(),
            }),
        });
        Self { pipeline, group, workgroups: (numel as u32).div_ceil(4 * Self::RUN) }
    }

    fn submit(&self, device: &wgpu::Device, queue: &wgpu::Queue) {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.workgroups, 1, 1);
        drop(pass);
        queue.submit([encoder.finish()]);
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
