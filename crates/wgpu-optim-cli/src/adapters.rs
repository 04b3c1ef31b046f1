//! `wgpu-optim adapters`, and opening a device.

use anyhow::{Context, Result};
use serde::Serialize;
use wgpu_optim::{Error, GpuOptimizer, ParamGroups, Requirements, TensorSpec, adapter, wgpu};
use wgpu_optim_cache::PipelineCache;

use crate::timer::Timer;

/// List the adapters, and whether they have what the optimizers need.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

/// What an adapter has.
#[derive(Serialize)]
struct Adapter {
    adapter: String,
    /// Largest buffer and largest binding, in bytes.
    max_buffer_size: u64,
    max_storage_buffer_binding_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    /// Bytes of workgroup memory.
    max_compute_workgroup_storage_size: u32,
    shader_f16: bool,
    /// Why no optimizer runs on it.
    unsupported: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let adapters = pollster::block_on(adapter::all(&adapter::instance()));
    if adapters.is_empty() {
        // The same words as everywhere else.
        pollster::block_on(adapter::from_env())?;
    }
    let adapters: Vec<_> = adapters.iter().map(Adapter::of).collect();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&adapters)?);
        return Ok(());
    }
    for (i, found) in adapters.iter().enumerate() {
        println!("{i}: {}", found.adapter);
        println!(
            "   buffers up to {} MiB, bindings up to {} MiB, {} storage buffers, {} KiB workgroup memory{}",
            found.max_buffer_size >> 20,
            found.max_storage_buffer_binding_size >> 20,
            found.max_storage_buffers_per_shader_stage,
            found.max_compute_workgroup_storage_size >> 10,
            if found.shader_f16 { ", f16" } else { "" },
        );
        if let Some(missing) = &found.unsupported {
            println!("   unsupported: {missing}");
        }
    }
    Ok(())
}

impl Adapter {
    fn of(found: &wgpu::Adapter) -> Self {
        let limits = found.limits();
        Self {
            adapter: adapter::describe(&found.get_info()),
            max_buffer_size: limits.max_buffer_size,
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_storage_buffers_per_shader_stage: limits.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            shader_f16: found.features().contains(wgpu::Features::SHADER_F16),
            unsupported: Requirements::webgpu().check(&limits).err().map(|missing| missing.to_string()),
        }
    }
}

/// A device with WebGPU's default limits, and larger buffers where the adapter has them.
pub fn open(found: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    let name = adapter::describe(&found.get_info());
    // Timestamps are for `bench`.
    let required_features = Requirements::optional_features(found.features()) | (found.features() & Timer::FEATURES);
    let required_limits =
        Requirements::webgpu().device_limits(&found.limits()).with_context(|| format!("adapter {name}"))?;
    let descriptor = wgpu::DeviceDescriptor { required_features, required_limits, ..Default::default() };
    pollster::block_on(found.request_device(&descriptor)).with_context(|| format!("opening adapter {name}"))
}

/// The adapter that the environment chooses, and a device on it.
pub fn open_chosen() -> Result<(String, wgpu::Device, wgpu::Queue)> {
    let (_, found) = pollster::block_on(adapter::from_env())?;
    let (device, queue) = open(&found)?;
    Ok((adapter::describe(&found.get_info()), device, queue))
}

/// An optimizer with the pipelines that earlier runs compiled. Keeps its own for later ones.
pub fn build(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    specs: &[TensorSpec],
    groups: impl Into<ParamGroups>,
) -> Result<GpuOptimizer> {
    let (cache, groups) = (PipelineCache::open_default(device), groups.into());
    let Some(cache) = cache else { return Ok(GpuOptimizer::new_blocking(device, queue, specs, groups)?) };
    let optimizer = GpuOptimizer::new_blocking(device, queue, specs, groups.with_pipeline_cache(cache.handle()))?;
    cache.save_or_warn();
    Ok(optimizer)
}

/// Waits until everything submitted is done.
pub fn wait(device: &wgpu::Device) -> Result<(), Error> {
    let waited = device.poll(wgpu::PollType::wait_indefinitely());
    waited.map(|_| ()).map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))
}
