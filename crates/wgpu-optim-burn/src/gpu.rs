//! The one wgpu device that Burn and the optimizer share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::wgpu::WgpuSetup;
use burn::tensor::Device;
use wgpu_optim::{adapter, wgpu};

use crate::error::Error;

/// Smallest alignment of tensors in buffers, in bytes: a vector of four coordinates.
const ALIGNMENT: u32 = 16;

/// A Burn device and the wgpu handles below it.
///
/// Open it once a process and clone it: Burn makes another runtime of every registration.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// Burn's name of the device, without autodiff.
    pub device: Device,
    /// The wgpu device on which Burn keeps its buffers.
    pub wgpu_device: wgpu::Device,
    /// The queue to which Burn submits.
    pub queue: wgpu::Queue,
    /// The adapter, for people.
    pub adapter: String,
    /// Maps as long as the device is there.
    probe: Arc<Mutex<wgpu::Buffer>>,
}

impl Gpu {
    /// Opens the adapter that the environment asks for (`WGPU_BACKEND`, `WGPU_ADAPTER_NAME`), or the first fast one, with
    /// all that it offers, and registers it with Burn.
    ///
    /// # Errors
    /// [`Error::Optimizer`] if no adapter fits, [`Error::Device`] if it gives no device or Burn cannot use it.
    #[cfg(not(target_family = "wasm"))]
    pub fn open() -> Result<Self, Error> {
        pollster::block_on(Self::open_async())
    }

    /// [`open`](Self::open), for browsers and async programs.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub async fn open_async() -> Result<Self, Error> {
        let (instance, adapter) = adapter::from_env().await?;
        let info = adapter.get_info();
        let name = adapter::describe(&info);
        // Burn picks its kernels by the features that it finds enabled.
        let features = adapter.features().difference(wgpu::Features::all_experimental_mask());
        let limits = adapter.limits();
        let limits = wgpu::Limits {
            min_storage_buffer_offset_alignment: limits.min_storage_buffer_offset_alignment.max(ALIGNMENT),
            ..limits
        };
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("wgpu-optim-burn"),
                required_features: features,
                required_limits: limits,
                memory_hints: wgpu::MemoryHints::MemoryUsage,
                ..Default::default()
            })
            .await
            .map_err(|e| Error::Device(format!("{name} gives no device: {e}")))?;
        Self::register(WgpuSetup { instance, adapter, device, queue, backend: info.backend })
    }

    /// Registers wgpu handles of the caller with Burn, as of a renderer.
    ///
    /// # Errors
    /// [`Error::Device`] if Burn cannot use them, or the device's offset alignments are below 16 bytes.
    pub fn register(setup: WgpuSetup) -> Result<Self, Error> {
        let name = adapter::describe(&setup.adapter.get_info());
        let device = Device::wgpu_options()
            .setup(setup.clone())
            .init()
            .map_err(|e| Error::Device(format!("Burn cannot use {name}: {e}")))?;
        Self::from_setup(device, &setup)
    }

    /// A device that Burn has opened, and the setup that it gave for it: what
    /// `Device::wgpu_options().init_with_setup()` returns.
    ///
    /// # Errors
    /// [`Error::Device`] if the device's offset alignments are below 16 bytes, as some drivers offer.
    pub fn from_setup(device: Device, setup: &WgpuSetup) -> Result<Self, Error> {
        let adapter = adapter::describe(&setup.adapter.get_info());
        let limits = setup.device.limits();
        // Burn places tensors at multiples of the larger one, and steps go four coordinates at a time.
        let storage = limits.min_storage_buffer_offset_alignment;
        let alignment = storage.max(limits.min_uniform_buffer_offset_alignment);
        if alignment < ALIGNMENT {
            return Err(Error::Device(format!(
                "the device of {adapter} was made with an offset alignment of {alignment} bytes; make it with \
                 `Gpu::open`, or request `min_storage_buffer_offset_alignment: {ALIGNMENT}`"
            )));
        }
        Ok(Self {
            device: device.inner(),
            wgpu_device: setup.device.clone(),
            queue: setup.queue.clone(),
            adapter,
            probe: probe(&setup.device),
        })
    }

    /// Refuses a device that was lost: wgpu drops work for one without a word, and the callback that would tell is
    /// Burn's.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let probe = self.probe.lock().unwrap_or_else(PoisonError::into_inner);
        let there = Arc::new(AtomicBool::new(true));
        let found = there.clone();
        probe
            .map_async(wgpu::MapMode::Read, .., move |mapped| found.store(mapped.is_ok(), Ordering::Relaxed));
        // The answer comes when the device is polled; failing, that says nothing more.
        let _ = self.wgpu_device.poll(wgpu::PollType::Poll);
        let answer = there.load(Ordering::Relaxed);
        probe.unmap();
        if answer {
            return Ok(());
        }
        Err(Error::Device(format!(
            "the device of {} was lost; open another, and go on from the last checkpoint",
            self.adapter
        )))
    }

    pub(crate) fn encoder(&self) -> wgpu::CommandEncoder {
        let label = Some("wgpu-optim-burn.step");
        self.wgpu_device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label })
    }
}

fn probe(device: &wgpu::Device) -> Arc<Mutex<wgpu::Buffer>> {
    Arc::new(Mutex::new(device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("wgpu-optim-burn.probe"),
        size: 4,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })))
}
