//! `wgpu-optim adapters`, and opening a device.

use anyhow::{Context, Result};
use wgpu_optim::{Error, Requirements, adapter, wgpu};

pub fn run() -> Result<()> {
    let adapters = pollster::block_on(adapter::all(&adapter::instance()));
    if adapters.is_empty() {
        // The same words as everywhere else.
        pollster::block_on(adapter::from_env())?;
    }
    for (i, found) in adapters.iter().enumerate() {
        println!("{i}: {}", adapter::describe(&found.get_info()));
        let limits = found.limits();
        println!(
            "   buffers up to {} MiB, bindings up to {} MiB, {} storage buffers, {} KiB workgroup memory{}",
            limits.max_buffer_size >> 20,
            limits.max_storage_buffer_binding_size >> 20,
            limits.max_storage_buffers_per_shader_stage,
            limits.max_compute_workgroup_storage_size >> 10,
            if found.features().contains(wgpu::Features::SHADER_F16) { ", f16" } else { "" },
        );
        if let Err(missing) = Requirements::webgpu().check(&limits) {
            println!("   unsupported: {missing}");
        }
    }
    Ok(())
}

/// A device with WebGPU's default limits, and larger buffers where the adapter has them.
pub fn open(found: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    let name = adapter::describe(&found.get_info());
    let required_features = Requirements::optional_features(found.features());
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

/// Waits until everything submitted is done.
pub fn wait(device: &wgpu::Device) -> Result<(), Error> {
    let waited = device.poll(wgpu::PollType::wait_indefinitely());
    waited.map(|_| ()).map_err(|e| Error::Gpu(format!("waiting for the device: {e}")))
}
