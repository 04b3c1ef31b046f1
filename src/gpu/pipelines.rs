//! Kernels → pipelines, and the layouts of their bind groups.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use super::slices::TensorSlice;
use super::submissions::lock;
use crate::kernel::catalog::Kernel;
use crate::kernel::tables::{Chunk, Grid, STRIDE};
use crate::plan::layout::ROWS;

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
}

impl Pipelines {
    pub(super) fn new(device: &wgpu::Device) -> Self {
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
        }
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
        let mut compiled = lock(&self.compiled);
        if let Some(known) = compiled.get(&key) {
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
            cache: None,
        });
        compiled.insert(key, pipeline.clone());
        pipeline
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
