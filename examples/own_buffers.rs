//! Parameters that live in a program's own buffers, gradients that its own shader writes: no ML engine.
//!
//! Fits a cubic to a thousand points of a sine. A compute shader writes the four gradients of the mean squared error;
//! [`GpuOptimizer::record_with`] steps the four coefficients in place, in the same encoder. Nothing crosses to the host
//! until the end. Run it with `cargo run --release --example own_buffers`.

use wgpu::util::DeviceExt;
use wgpu_optim::{GpuOptimizer, Recipe, TensorBuffers, TensorSlice, TensorSpec, adapter, wgpu};

/// grad[k] = mean over x of 2 (p(x) − sin x) x^k, with p(x) = c₀ + c₁x + c₂x² + c₃x³ and x in [−3, 3].
const GRADIENT: &str = "
@group(0) @binding(0) var<storage, read_write> c: array<f32, 4>;
@group(0) @binding(1) var<storage, read_write> grad: array<f32, 4>;

@compute @workgroup_size(4)
fn gradient(@builtin(local_invocation_index) k: u32) {
    var sum = 0.0;
    for (var i = 0u; i < 1000u; i += 1u) {
        let x = 6.0 * (f32(i) + 0.5) / 1000.0 - 3.0;
        let powers = vec4<f32>(1.0, x, x * x, x * x * x);
        let error = dot(vec4<f32>(c[0], c[1], c[2], c[3]), powers) - sin(x);
        sum += 2.0 * error * powers[k];
    }
    grad[k] = sum / 1000.0;
}
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (_instance, found) = pollster::block_on(adapter::from_env())?;
    println!("adapter: {}", adapter::describe(&found.get_info()));
    let (device, queue) = pollster::block_on(found.request_device(&wgpu::DeviceDescriptor::default()))?;

    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let zeros = |label| {
        let contents = &[0; 16];
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: Some(label), contents, usage })
    };
    let (coefficients, grad) = (zeros("coefficients"), zeros("gradient"));
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: Some("gradient"),
        source: wgpu::ShaderSource::Wgsl(GRADIENT.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some("gradient"),
        layout: None,
        module: &module,
        entry_point: Some("gradient"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    let buffers = TensorBuffers::new(TensorSlice::whole(&coefficients), TensorSlice::whole(&grad));
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some("gradient"),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &[
            wgpu::BindGroupEntry { binding: 0, resource: buffers.param.binding() },
            wgpu::BindGroupEntry { binding: 1, resource: grad.as_entire_binding() },
        ],
    });

    let specs = [TensorSpec::new("coefficients", [4])];
    let mut optimizer = GpuOptimizer::for_buffers_blocking(&device, &queue, &specs, Recipe::adamw(0.02).mgup())?;
    for _ in 0..2000 {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        optimizer.record_with(&mut encoder, &[buffers])?;
        queue.submit([encoder.finish()]);
    }

    let c = read(&device, &queue, &coefficients)?;
    println!("sin x ≈ {:.4} {:+.4} x {:+.4} x² {:+.4} x³ on [−3, 3]", c[0], c[1], c[2], c[3]);
    // The least-squares solution.
    let best = [0.0, 0.8779, 0.0, -0.0986];
    if c.iter().zip(best).any(|(c, best)| (c - best).abs() > 2e-3) {
        return Err(format!("that is not the least-squares solution {best:?}").into());
    }
    Ok(())
}

fn read(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    buffer: &wgpu::Buffer,
) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let staging = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("staging"),
        size: buffer.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    queue.submit([encoder.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |_| ());
    device.poll(wgpu::PollType::wait_indefinitely())?;
    Ok(bytemuck::pod_collect_to_vec(&staging.get_mapped_range(..)?))
}
