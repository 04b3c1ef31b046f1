//! The adapters that a test runs on: every Vulkan, Metal or DirectX 12 adapter that has the limits, or those of `WGPU_BACKEND`,
//! or whose name contains `WGPU_ADAPTER_NAME`. A missing adapter fails.
#![allow(dead_code)]

use wgpu_optim::{Requirements, adapter, wgpu};

pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
}

/// A device of WebGPU's default limits on every adapter.
pub fn gpus() -> Vec<Gpu> {
    gpus_with(wgpu::Limits::default())
}

pub fn gpus_with(limits: wgpu::Limits) -> Vec<Gpu> {
    let instance = adapter::instance();
    let chosen = std::env::var("WGPU_ADAPTER_NAME").unwrap_or_default().to_lowercase();
    let backends = wgpu::Backends::from_env().unwrap_or(wgpu::Backends::PRIMARY);
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let gpus: Vec<Gpu> = adapters
        .into_iter()
        .filter(|a| a.get_info().name.to_lowercase().contains(&chosen))
        .filter(|a| limits.check_limits(&a.limits()))
        .map(|a| {
            let name = adapter::describe(&a.get_info());
            println!("adapter: {name}");
            let descriptor = wgpu::DeviceDescriptor {
                required_features: Requirements::optional_features(a.features()),
                required_limits: limits.clone(),
                ..Default::default()
            };
            let (device, queue) = pollster::block_on(a.request_device(&descriptor)).expect("a device");
            Gpu { name, instance: instance.clone(), device, queue }
        })
        .collect();
    assert!(!gpus.is_empty(), "no adapter named `{chosen}` has the limits; scripts/test.sh installs a software one");
    gpus
}

/// All of a buffer.
pub fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<u8> {
    let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer.size(),
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let mut copy = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    copy.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
    gpu.queue.submit([copy.finish()]);
    staging.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    staging.get_mapped_range(..).unwrap().to_vec()
}
