//! The adapters that a test runs on: every Vulkan, Metal or DirectX 12 adapter that has the limits, or those of `WGPU_BACKEND`,
//! or whose name contains `WGPU_ADAPTER_NAME`. A missing adapter fails.
#![allow(dead_code)]

pub mod few;

use std::sync::{LazyLock, OnceLock};

use wgpu_optim::{Error, GpuOptimizer, ParamGroups, Recipe, Requirements, TensorSpec, adapter, verify, wgpu};

pub struct Gpu {
    pub name: String,
    pub instance: wgpu::Instance,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Optimizers with arenas, for buffers and without states, whose siblings share the pipelines that one of them has compiled.
    siblings: [OnceLock<GpuOptimizer>; 3],
}

impl Gpu {
    /// As `GpuOptimizer::new`, but no pipeline is compiled twice.
    pub fn optimizer(&self, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<GpuOptimizer, Error> {
        self.sibling(0, GpuOptimizer::new_blocking, specs, groups)
    }

    /// As `GpuOptimizer::for_buffers`, but no pipeline is compiled twice.
    pub fn for_buffers(&self, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<GpuOptimizer, Error> {
        self.sibling(1, GpuOptimizer::for_buffers_blocking, specs, groups)
    }

    /// As `GpuOptimizer::stateless`, but no pipeline is compiled twice.
    pub fn stateless(&self, specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<GpuOptimizer, Error> {
        self.sibling(2, GpuOptimizer::stateless_blocking, specs, groups)
    }

    /// As `verify::Runner::new`, but no pipeline is compiled twice.
    pub fn runner(&self) -> verify::Runner {
        let compiled = self.optimizer(&one(), Recipe::lion(1e-3)).unwrap();
        verify::Runner::new(&self.device, &self.queue).beside(compiled)
    }

    fn sibling(
        &self,
        kind: usize,
        new: fn(&wgpu::Device, &wgpu::Queue, &[TensorSpec], Recipe) -> Result<GpuOptimizer, Error>,
        specs: &[TensorSpec],
        groups: impl Into<ParamGroups>,
    ) -> Result<GpuOptimizer, Error> {
        let first = || new(&self.device, &self.queue, &one(), Recipe::lion(1e-3)).unwrap();
        self.siblings[kind].get_or_init(first).sibling_blocking(specs, groups)
    }
}

fn one() -> [TensorSpec; 1] {
    [TensorSpec::new("one", [1])]
}

/// Devices of all tests that ask: what one of them compiles, the others need not compile again. On OpenGL, whose contexts belong to one
/// thread, devices of this test.
pub fn shared_gpus() -> Shared {
    static ALL: LazyLock<Vec<Gpu>> = LazyLock::new(gpus);
    if is_threaded() { Shared::All(&ALL) } else { Shared::Own(gpus()) }
}

pub enum Shared {
    All(&'static [Gpu]),
    Own(Vec<Gpu>),
}

impl std::ops::Deref for Shared {
    type Target = [Gpu];

    fn deref(&self) -> &[Gpu] {
        match self {
            Self::All(gpus) => gpus,
            Self::Own(gpus) => gpus,
        }
    }
}

/// One instance for all threads, except on OpenGL. The validation layers of Debian 12 crashed in one of five runs in which threads made and
/// ended instances at the same time.
fn instance() -> wgpu::Instance {
    static SHARED: LazyLock<wgpu::Instance> = LazyLock::new(adapter::instance);
    if is_threaded() { SHARED.clone() } else { adapter::instance() }
}

/// Whether devices may be used on other threads than their own.
fn is_threaded() -> bool {
    wgpu::Backends::from_env().is_none_or(|backends| !backends.contains(wgpu::Backends::GL))
}

/// A device of WebGPU's default limits on every adapter.
pub fn gpus() -> Vec<Gpu> {
    gpus_with(wgpu::Limits::default())
}

pub fn gpus_with(limits: wgpu::Limits) -> Vec<Gpu> {
    gpus_in(instance(), limits)
}

/// Devices of an instance, for tests that count what is in it.
pub fn gpus_in(instance: wgpu::Instance, limits: wgpu::Limits) -> Vec<Gpu> {
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
            Gpu { name, instance: instance.clone(), device, queue, siblings: Default::default() }
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
