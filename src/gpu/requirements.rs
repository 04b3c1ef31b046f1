//! What a device must offer, known before there is one.

use crate::error::{Error, Missing, Result};
use crate::kernel::tables::{Chunk, HEADER_BYTES, STRIDE, TENSOR_BYTES};
use crate::plan::assemble::assemble;
use crate::plan::layout::{self, BINS, Class, Ownership, Plan, PlanLimits, ROWS, WORKGROUP};
use crate::plan::storage::Storage;
use crate::recipe::groups::ParamGroups;
use crate::recipe::launch::LaunchShape;
use crate::recipe::matrix::{Matmul, TILES};
use crate::recipe::policy::Selects;
use crate::recipe::spec::{CHUNK, TensorSpec};

/// The limits that a list of tensors and groups needs.
///
/// ```no_run
/// # async fn open(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
/// use wgpu_optim::{Recipe, Requirements, TensorSpec, wgpu};
///
/// let specs = [TensorSpec::new("weight", [512, 512])];
/// let requirements = Requirements::new(&specs, Recipe::adamw(1e-3).mgup())?;
/// let (device, queue) = adapter
///     .request_device(&wgpu::DeviceDescriptor {
///         required_limits: requirements.device_limits(&adapter.limits())?,
///         ..Default::default()
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// Only those in [`LIMITS`] count.
    limits: wgpu::Limits,
}

impl Requirements {
    /// Computes the limits. They exceed WebGPU's defaults only for:
    ///
    /// - a tensor larger than 256 MiB,
    /// - a tensor of more than 16.7 million coordinates under a base with three or four states per coordinate, or with split masters and two,
    /// - split masters under exact `mgup`, where a base has more than two states: nine storage buffers,
    /// - a matrix under a matrix base, with its padding, larger than 128 MiB,
    /// - a tensor larger than 128 MiB with second moments per row, or under Adafactor, AdaGrad-Norm or a schedule-free base,
    /// - under exact `mgup`, more than 4,000 tensors of more than 4,096 parameters, or 1,600 of more than 32,768.
    ///
    /// # Errors
    /// As for [`GpuOptimizer::new`](crate::GpuOptimizer::new), for specs and recipes that are not valid on any device.
    pub fn new(specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<Self> {
        let groups = groups.into();
        groups.validate_specs(specs)?;
        let limits = wgpu::Limits::default();
        // A matrix is bound whole while it is orthogonalized.
        let matrix = layout::largest_matrix(specs, &groups);
        // States of a pair share a buffer.
        let buffer = limits.max_buffer_size.max(2 * layout::largest_tensor(specs)).max(matrix);
        let endless = PlanLimits { binding: u64::MAX, buffer };
        let plan = Plan::new(specs, &groups, Ownership::Arenas, endless)?;
        let buffers = Storage::new(&plan);
        let stages =
            assemble(&plan, &buffers, limits.max_compute_workgroups_per_dimension, (Matmul::Tiles, LaunchShape::Gpu));
        // The tables are bound whole; parameters, gradients and state are bound in pages of any size down to a chunk.
        let tables = [
            (size_of::<Chunk>() * plan.chunks.len()) as u64,
            HEADER_BYTES + specs.len() as u64 * TENSOR_BYTES,
            4 * plan.least_counters(),
            4 * plan.samples,
            if plan.observes { plan.observations() } else { 0 },
            plan.whole_tensors(),
            4 * CHUNK,
            matrix,
        ];
        let table = tables.into_iter().max().unwrap_or(0);
        let searches = |class: &Class| class.policy.samples() || class.policy.selects() == Selects::Small;
        // A histogram, a prefix sum, and a few words; otherwise two sets of sums. Products need their tiles.
        let histogram = if plan.classes.iter().any(searches) { BINS + WORKGROUP + 32 } else { WORKGROUP + 64 };
        let tiles = if matrix > 0 { TILES } else { 0 };
        let limits = wgpu::Limits {
            max_bind_groups: 4,
            max_storage_buffers_per_shader_stage: stages.storage_buffers() as u32,
            max_uniform_buffers_per_shader_stage: 3,
            max_dynamic_uniform_buffers_per_pipeline_layout: 2,
            max_dynamic_storage_buffers_per_pipeline_layout: 1,
            max_uniform_buffer_binding_size: STRIDE * ROWS as u64,
            max_storage_buffer_binding_size: table,
            max_buffer_size: layout::largest_tensor(specs).max(table),
            max_compute_workgroup_storage_size: 4 * histogram.max(tiles) as u32,
            max_compute_invocations_per_workgroup: WORKGROUP as u32,
            max_compute_workgroup_size_x: WORKGROUP as u32,
            ..limits
        };
        Ok(Self { limits })
    }

    /// The features of an adapter that can speed something up: subgroups on CPUs and f16 for
    /// [`Matmul::TilesF16`](crate::matrix::Matmul::TilesF16) in the matrix products of matrix bases, and pipeline caches. They are optional.
    ///
    /// ```no_run
    /// # async fn example(adapter: wgpu_optim::wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
    /// use wgpu_optim::{Requirements, wgpu};
    ///
    /// let (device, queue) = adapter
    ///     .request_device(&wgpu::DeviceDescriptor {
    ///         required_features: Requirements::optional_features(adapter.features()),
    ///         required_limits: Requirements::webgpu().device_limits(&adapter.limits())?,
    ///         ..Default::default()
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn optional_features(adapter: wgpu::Features) -> wgpu::Features {
        adapter & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16 | wgpu::Features::PIPELINE_CACHE)
    }

    /// WebGPU's default limits for compute, which every adapter of a browser has. [`new`](Self::new) says which tensors and recipes need
    /// more.
    pub fn webgpu() -> Self {
        Self { limits: wgpu::Limits::default() }
    }

    /// Checks that the limits of a device or adapter are high enough.
    ///
    /// ```
    /// use wgpu_optim::{Error, Missing, Recipe, Requirements, TensorSpec, wgpu};
    ///
    /// let requirements = Requirements::new(&[TensorSpec::new("w", [5000])], Recipe::adamw(1e-3).mgup())?;
    /// requirements.check(&wgpu::Limits::default())?;
    /// let few = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, ..wgpu::Limits::default() };
    /// let Err(Error::Unsupported(missing)) = requirements.check(&few) else { panic!("four buffers are not enough") };
    /// let Missing { limit, needed, available, .. } = &missing[0];
    /// assert_eq!((&limit[..], needed, available), ("max_storage_buffers_per_shader_stage", &8, &4));
    /// # Ok::<(), wgpu_optim::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] with every limit that is missing: needed and available.
    pub fn check(&self, limits: &wgpu::Limits) -> Result<()> {
        let mut missing = Vec::new();
        self.limits.check_limits_with_fail_fn(limits, false, |limit, needed, available| {
            if LIMITS.contains(&limit) {
                missing.push(Missing { limit: limit.to_owned(), needed, available });
            }
        });
        if missing.is_empty() { Ok(()) } else { Err(Error::Unsupported(missing)) }
    }

    /// The limits to request a device with: the adapter's own for the sizes of buffers and bindings, and WebGPU's defaults for the rest, or
    /// the adapter's where they are lower.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the limits of the adapter are too low.
    pub fn device_limits(&self, adapter: &wgpu::Limits) -> Result<wgpu::Limits> {
        self.check(adapter)?;
        Ok(wgpu::Limits {
            max_buffer_size: adapter.max_buffer_size,
            max_storage_buffer_binding_size: adapter.max_storage_buffer_binding_size,
            ..wgpu::Limits::default().or_worse_values_from(adapter)
        })
    }
}

/// The limits that matter here.
const LIMITS: [&str; 11] = [
    "max_bind_groups",
    "max_storage_buffers_per_shader_stage",
    "max_uniform_buffers_per_shader_stage",
    "max_dynamic_uniform_buffers_per_pipeline_layout",
    "max_dynamic_storage_buffers_per_pipeline_layout",
    "max_uniform_buffer_binding_size",
    "max_storage_buffer_binding_size",
    "max_buffer_size",
    "max_compute_workgroup_storage_size",
    "max_compute_invocations_per_workgroup",
    "max_compute_workgroup_size_x",
];

/// The limits that shape a plan on a device.
pub(crate) fn plan_limits(limits: &wgpu::Limits) -> PlanLimits {
    let binding = limits.max_storage_buffer_binding_size.min(layout::PAGE);
    PlanLimits { binding, buffer: limits.max_buffer_size }
}
