//! Kernels → pipelines, and the layouts of their bind groups.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

#[cfg(not(target_arch = "wasm32"))]
use super::scope;
use super::slices::TensorSlice;
use super::submissions::lock;
use crate::kernel::catalog::Kernel;
use crate::kernel::tables::{Chunk, Grid, STRIDE};
use crate::plan::layout::ROWS;
use crate::recipe::groups::ParamGroups;

/// A kernel with the bindings of its groups 1, 2 and 3.
type Compiled = (Arc<Kernel>, [Vec<u32>; 3]);

/// Pipelines and layouts. A clone shares them.
#[derive(Clone)]
pub(super) struct Pipelines {
    pub device: wgpu::Device,
    /// By kernel and layout.
    compiled: Arc<Mutex<HashMap<String, wgpu::ComputePipeline>>>,
    /// Layouts of storage buffers, by the numbers of their bindings.
    storage: Arc<Mutex<HashMap<Vec<u32>, wgpu::BindGroupLayout>>>,
    pub tables: wgpu::BindGroupLayout,
    /// The layout of a kernel's own uniform.
    pub uniform: wgpu::BindGroupLayout,
    cache: Option<wgpu::PipelineCache>,
}

#[cfg(not(target_arch = "wasm32"))]
impl ParamGroups {
    /// Compiles pipelines with this cache, which keeps what drivers compile from one run of a program to the next. The caller makes it, on
    /// the optimizer's device with the feature `PIPELINE_CACHE`, and saves its data: the crate `wgpu-optim-cache` does both. Only Vulkan has
    /// such caches. The default is none.
    ///
    /// ```
    /// use wgpu_optim::{ParamGroups, Recipe, wgpu};
    ///
    /// fn settings(cache: &wgpu::PipelineCache) -> ParamGroups {
    ///     ParamGroups::from(Recipe::muon(2e-2)).with_pipeline_cache(cache)
    /// }
    /// ```
    #[must_use]
    pub fn with_pipeline_cache(mut self, cache: &wgpu::PipelineCache) -> Self {
        self.pipeline_cache = Some(by_address::ByAddress(Arc::new(cache.clone())));
        self
    }
}

impl Pipelines {
    pub(super) fn new(device: &wgpu::Device, groups: &ParamGroups) -> Self {
        let uniform = wgpu::BufferBindingType::Uniform;
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let tables = [
            (0, uniform, Some(size_of::<Grid>() as u64)),
            (1, uniform, Some(STRIDE * ROWS as u64)),
            (2, storage(true), Some(size_of::<Chunk>() as u64)),
            (3, storage(false), None),
            (4, uniform, None),
        ];
        Self {
            compiled: Arc::default(),
            storage: Arc::default(),
            tables: layout(device, "tables", tables),
            uniform: layout(device, "uniform", [(0, uniform, Some(16))]),
            device: device.clone(),
            cache: groups.pipeline_cache.as_ref().and_then(|cache| cache.downcast_ref()).cloned(),
        }
    }

    /// The pipelines of these kernels, and an error of wgpu that scopes of this thread do not see.
    pub(super) fn compile(&self, kernels: &[Compiled]) -> (Vec<wgpu::ComputePipeline>, Option<wgpu::Error>) {
        let error = None;
        #[cfg(not(target_arch = "wasm32"))]
        let error = error.or_else(|| self.compile_ahead(kernels));
        (kernels.iter().map(|(kernel, groups)| self.pipeline(kernel, groups)).collect(), error)
    }

    /// Compiles on as many threads as the machine has processors, and returns an error if there was one.
    #[cfg(not(target_arch = "wasm32"))]
    fn compile_ahead(&self, kernels: &[Compiled]) -> Option<wgpu::Error> {
        // A context of OpenGL belongs to one thread. Others would wait for it and give up. A sibling finds its pipelines compiled.
        if self.device.adapter_info().backend == wgpu::Backend::Gl || !lock(&self.compiled).is_empty() {
            return None;
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len());
        // Errors are told to the thread that causes them.
        let work = |first| {
            let own = kernels.iter().skip(first).step_by(threads);
            let compile = || own.for_each(|(kernel, groups)| drop(self.pipeline(kernel, groups)));
            pollster::block_on(scope::errors(&self.device, scope::ALL, compile).1)
        };
        std::thread::scope(|scope| {
            // What no thread could be had for is compiled by the caller.
            let spawn = |first| std::thread::Builder::new().spawn_scoped(scope, move || work(first)).ok();
            let threads: Vec<_> = (0..threads).filter_map(spawn).collect();
            threads.into_iter().fold(None, |error, thread| error.or(thread.join().ok().flatten()))
        })
    }

    /// The layout of a bind group of storage buffers at these bindings.
    pub(super) fn layout(&self, bindings: &[u32]) -> wgpu::BindGroupLayout {
        let storage = wgpu::BufferBindingType::Storage { read_only: false };
        let make = || layout(&self.device, "storage", bindings.iter().map(|&binding| (binding, storage, None)));
        lock(&self.storage).entry(bindings.to_vec()).or_insert_with(make).clone()
    }

    /// A bind group of these ranges, each with the number of its binding.
    pub(super) fn bind<'a>(
        &self,
        what: &str,
        layout: &wgpu::BindGroupLayout,
        ranges: impl Iterator<Item = (u32, TensorSlice<'a>)>,
    ) -> wgpu::BindGroup {
        let entry = |(binding, range): (u32, TensorSlice<'a>)| {
            let resource = range.binding();
            wgpu::BindGroupEntry { binding, resource }
        };
        let (label, entries) = (format!("wgpu-optim.{what}"), ranges.map(entry).collect::<Vec<_>>());
        let descriptor = wgpu::BindGroupDescriptor { label: Some(&label), layout, entries: &entries };
        self.device.create_bind_group(&descriptor)
    }

    /// The pipeline of a kernel, whose bind groups 1, 2 and 3 have these bindings.
    pub(super) fn pipeline(&self, kernel: &Kernel, groups: &[Vec<u32>; 3]) -> wgpu::ComputePipeline {
        let key = format!("{groups:?}{:?}{}", kernel.constants, kernel.source);
        if let Some(known) = lock(&self.compiled).get(&key) {
            return known.clone();
        }
        let first = kernel.bindings.iter().find(|binding| binding.group == 0);
        let first = first.map(|first| if first.name == "grid" { &self.tables } else { &self.uniform });
        let last = groups.iter().rposition(|group| !group.is_empty()).map_or(0, |last| last + 1);
        let rest: Vec<_> = groups[..last].iter().map(|group| self.layout(group)).collect();
        let layouts: Vec<_> = [first].into_iter().chain(rest.iter().map(Some)).collect();
        let label = format!("wgpu-optim.{}", kernel.entry_point);
        let device = &self.device;
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &layouts,
            immediate_size: 0,
        });
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&label),
            source: wgpu::ShaderSource::Wgsl(kernel.source.as_str().into()),
        });
        let constants: Vec<_> = kernel.constants.iter().map(|(name, &value)| (name.as_str(), value)).collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(&kernel.entry_point),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                // Every kernel clears its own: the general way costs seconds on some software adapters.
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref(),
        });
        lock(&self.compiled).entry(key).or_insert(pipeline).clone()
    }
}

/// A layout of buffers, with the number of the binding, its type and, where its offset is dynamic, the bytes that are bound.
fn layout(
    device: &wgpu::Device,
    what: &str,
    buffers: impl IntoIterator<Item = (u32, wgpu::BufferBindingType, Option<u64>)>,
) -> wgpu::BindGroupLayout {
    let entry = |(binding, ty, dynamic): (u32, _, Option<u64>)| {
        let (has_dynamic_offset, min_binding_size) = (dynamic.is_some(), dynamic.and_then(NonZeroU64::new));
        let ty = wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size };
        wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
    };
    let (label, entries) = (format!("wgpu-optim.layout.{what}"), buffers.into_iter().map(entry).collect::<Vec<_>>());
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries })
}
