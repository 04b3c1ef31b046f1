//! The one wgpu device that Burn and the optimizer share.

use anyhow::{Context, Result};
use burn::tensor::Device;
use burn::tensor::wgpu::WgpuSetup;
use wgpu_optim::{adapter, wgpu};

/// A wgpu device, its queue, and the same device under Burn's name.
pub struct Gpu {
    /// The adapter, for people.
    pub adapter: String,
    /// The device on which both sides keep their buffers.
    pub device: wgpu::Device,
    /// The queue to which both sides submit.
    pub queue: wgpu::Queue,
    /// Burn's handle of the device, without autodiff.
    pub burn: Device,
}

impl Gpu {
    /// Opens the adapter that the environment asks for (`WGPU_BACKEND`, `WGPU_ADAPTER_NAME`), or the first
    /// that there is, and hands its device to Burn.
    ///
    /// Call it once a process: Burn would make another runtime of every further registration.
    pub fn open() -> Result<Self> {
        pollster::block_on(Self::open_async())
    }

    async fn open_async() -> Result<Self> {
        let (instance, adapter) = adapter::from_env().await?;
        let info = adapter.get_info();
        // Burn compiles for whatever the adapter reports, so the device gets all of it: every feature but
        // the experimental ones (wgpu wants an unsafe acknowledgement for those) and mapped primary buffers
        // (slow on discrete cards).
        let features = adapter.features()
            - wgpu::Features::all_experimental_mask()
            - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgpu-optim-train"),
                required_features: features,
                required_limits: adapter.limits(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .with_context(|| format!("{} gives no device", adapter::describe(&info)))?;
        let burn = Device::wgpu_options()
            .setup(WgpuSetup {
                instance,
                adapter,
                device: device.clone(),
                queue: queue.clone(),
                backend: info.backend,
            })
            .init()
            .with_context(|| format!("Burn cannot use {}", adapter::describe(&info)))?;
        Ok(Self { adapter: adapter::describe(&info), device, queue, burn })
    }
}
