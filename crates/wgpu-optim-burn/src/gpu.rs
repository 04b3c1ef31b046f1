//! The one wgpu device that Burn and the optimizer share.

use std::sync::Arc;

use burn::backend::wgpu::WgpuSetup;
use burn::tensor::Device;
use wgpu_optim::adapter::{self, Probe};
use wgpu_optim::wgpu;

use crate::error::Error;

/// A Burn device and the wgpu handles below it.
///
/// Make one per process and clone it: Burn creates a new runtime for each registration.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// The Burn device, without autodiff.
    pub device: Device,
    /// The wgpu device on which Burn keeps its buffers.
    pub wgpu_device: wgpu::Device,
    /// The queue to which Burn submits.
    pub queue: wgpu::Queue,
    /// Name, backend and driver of the adapter, for display.
    pub adapter: String,
    probe: Arc<Probe>,
}

impl Gpu {
    /// Opens the adapter that `WGPU_BACKEND` and `WGPU_ADAPTER_NAME` choose, or wgpu's high-performance choice, with its
    /// limits and its features that are not experimental, and registers it with Burn.
    ///
    /// # Errors
    /// [`Error::Optimizer`] if no adapter fits, [`Error::Device`] if no device can be opened or Burn cannot use it.
    pub fn open() -> Result<Self, Error> {
        pollster::block_on(Self::open_async())
    }

    /// [`open`](Self::open), for async programs.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_async() -> Result<Self, Error> {
        let (instance, adapter) = adapter::from_env().await?;
        let info = adapter.get_info();
        let name = adapter::describe(&info);
        // Burn picks its kernels by the features that it finds enabled.
        let features = adapter.features().difference(wgpu::Features::all_experimental_mask());
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgpu-optim-burn"),
                required_features: features,
                required_limits: adapter.limits(),
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device(format!("cannot open a device on {name}: {e}")))?;
        Self::register(WgpuSetup { instance, adapter, device, queue, backend: info.backend })
    }

    /// Registers your own wgpu device with Burn, for example that of a renderer.
    ///
    /// # Errors
    /// [`Error::Device`] if Burn cannot use them; with the feature `vulkan`, also without
    /// `PASSTHROUGH_SHADERS` and `IMMEDIATES`.
    pub fn register(setup: WgpuSetup) -> Result<Self, Error> {
        let name = adapter::describe(&setup.adapter.get_info());
        // Burn would find out at its first kernel.
        let needed = wgpu::Features::PASSTHROUGH_SHADERS | wgpu::Features::IMMEDIATES;
        let missing = needed.difference(setup.device.features());
        if cfg!(feature = "vulkan") && setup.backend == wgpu::Backend::Vulkan && !missing.is_empty() {
            return Err(Error::Device(format!(
                "Burn's SPIR-V compiler needs features that the device of {name} was opened without: {missing}; request \
                 them, or build without the feature `vulkan`"
            )));
        }
        let device = Device::wgpu_options()
            .setup(setup.clone())
            .init()
            .map_err(|e| Error::Device(format!("Burn cannot use {name}: {e}")))?;
        Ok(Self::from_setup(device, &setup))
    }

    /// Shares a device that Burn has opened. Pass the device and the setup that
    /// `Device::wgpu_options().init_with_setup()` returned.
    pub fn from_setup(device: Device, setup: &WgpuSetup) -> Self {
        Self {
            device: device.inner(),
            wgpu_device: setup.device.clone(),
            queue: setup.queue.clone(),
            adapter: adapter::describe(&setup.adapter.get_info()),
            probe: Arc::new(Probe::new(&setup.device)),
        }
    }

    /// Runs what uses the device, and turns what wgpu reports meanwhile into an error.
    pub(crate) fn guarded<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes = [Validation, OutOfMemory, Internal].map(|filter| self.wgpu_device.push_error_scope(filter));
        let result = work();
        let reports: Vec<_> = scopes.into_iter().rev().map(wgpu::ErrorScopeGuard::pop).collect();
        let reported = reports.into_iter().find_map(pollster::block_on);
        match reported {
            Some(error) => Err(wgpu_optim::Error::Gpu(error.to_string()).into()),
            None => result,
        }
    }

    /// Refuses a device that was lost.
    pub(crate) fn check(&self) -> Result<(), Error> {
        Ok(self.probe.check()?)
    }

    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wgpu-optim-burn.step");
        self.wgpu_device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }
}
