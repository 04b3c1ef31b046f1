//! What a device must offer, known before there is one.

use std::collections::BTreeSet;

use crate::error::{Error, Missing};
use crate::groups::ParamGroups;
use crate::kernel::{Kernel, TENSORS_HEADER, TensorEntry, all_kernels};
use crate::matrix::TILE;
use crate::plan::{self, CHUNK, Chunk, Ownership, Plan, PlanLimits, ROWS, TensorSpec, WORKGROUP};

/// The limits that a list of tensors and groups needs.
///
/// ```no_run
/// # async fn open(adapter: wgpu::Adapter) -> Result<(), Box<dyn std::error::Error>> {
/// use wgpu_optim::{Recipe, Requirements, TensorSpec, wgpu};
///
/// let specs = [TensorSpec::new("weight", [512, 512])];
/// let requirements = Requirements::new(&specs, Recipe::mgup_adamw(1e-3))?;
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
    limits: Vec<(&'static str, u64)>,
}

impl Requirements {
    /// Derives the limits. None of them exceeds WebGPU's defaults unless a tensor is larger than 256 MiB, a matrix of Muon or
    /// AdaGO larger than 128 MiB with its padding, or more than 4,000 tensors of more than 4,096 parameters, or 1,600 of more than
    /// 32,768, are stepped under exact `mgup`.
    ///
    /// # Errors
    /// As for [`GpuOptimizer::new`](crate::GpuOptimizer::new), for specs and recipes that no device could serve.
    pub fn new(specs: &[TensorSpec], groups: impl Into<ParamGroups>) -> Result<Self, Error> {
        let groups = groups.into();
        let guarded = groups.gradients().guarded;
        plan::validate(specs, &groups)?;
        let limits = wgpu::Limits::default();
        // A matrix is bound whole while it is orthogonalised.
        let matrix = plan::largest_matrix(specs, &groups);
        let buffer = limits.max_buffer_size.max(plan::largest_tensor(specs)).max(matrix);
        let endless = PlanLimits { binding: u64::MAX, buffer };
        let plan = Plan::new(specs, &groups, Ownership::Arenas, endless)?;
        let kinds: BTreeSet<_> = plan.classes.iter().map(|class| (class.base, class.policy)).collect();
        let storage = all_kernels()
            .into_iter()
            .filter(|kernel| match kernel {
                Kernel::Guard => guarded,
                Kernel::Observe { .. } | Kernel::Moved { .. } | Kernel::Report => {
                    groups.telemetry().is_some()
                }
                Kernel::Norm { base, .. } => guarded || base.is_matrix(),
                _ => true,
            })
            .filter(|kernel| kinds.iter().any(|&(base, policy)| kernel.serves(base, policy)))
            .map(|kernel| kernel.storage_buffers())
            .max()
            .unwrap_or(0);
        // The tables are bound whole; parameters, gradients and state are bound in pages of any size down to a chunk.
        let tables = [
            <Chunk as encase::ShaderSize>::SHADER_SIZE.get() * plan.chunks.len() as u64,
            TENSORS_HEADER + specs.len() as u64 * <TensorEntry as encase::ShaderSize>::SHADER_SIZE.get(),
            4 * plan.least_counters(),
            4 * plan.samples,
            if plan.observes { plan.observations() } else { 0 },
            plan.whole_tensors(),
            4 * CHUNK,
            matrix,
        ];
        let table = tables.into_iter().max().unwrap_or(0);
        let samples = kinds.iter().any(|(_, policy)| policy.samples());
        // A histogram, a prefix sum, and a few words; two tiles of products, and a word.
        let histogram = if samples { plan::BINS + WORKGROUP + 32 } else { WORKGROUP };
        let tiles = if matrix > 0 { 2 * TILE + 4 } else { 0 };
        let workgroup_memory = 4 * histogram.max(tiles);
        Ok(Self {
            limits: vec![
                ("max_bind_groups", 4),
                ("max_storage_buffers_per_shader_stage", u64::from(storage)),
                ("max_uniform_buffers_per_shader_stage", 3),
                ("max_dynamic_uniform_buffers_per_pipeline_layout", 2),
                ("max_dynamic_storage_buffers_per_pipeline_layout", 1),
                ("max_uniform_buffer_binding_size", crate::kernel::STRIDE * ROWS as u64),
                ("max_storage_buffer_binding_size", table),
                ("max_buffer_size", plan::largest_tensor(specs).max(table)),
                ("max_compute_workgroup_storage_size", workgroup_memory),
                ("max_compute_invocations_per_workgroup", WORKGROUP),
                ("max_compute_workgroup_size_x", WORKGROUP),
            ],
        })
    }

    /// Features that an adapter has, nothing needs, and the matrix products of Muon and AdaGO can use: subgroups on CPUs, and
    /// f16 for [`Matmul::TilesF16`](crate::matrix::Matmul::TilesF16).
    pub fn optional_features(adapter: wgpu::Features) -> wgpu::Features {
        adapter & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16)
    }

    /// WebGPU's default limits for compute: what every adapter of a browser has, and enough for any recipe on tensors up
    /// to 256 MiB, or matrices of Muon and AdaGO up to 128 MiB.
    pub fn webgpu() -> Self {
        let defaults = wgpu::Limits::default();
        Self { limits: LIMITS.iter().map(|&limit| (limit, available(&defaults, limit))).collect() }
    }

    /// Refuses limits that do not suffice.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with every limit that is missing: needed and available.
    pub fn check(&self, limits: &wgpu::Limits) -> Result<(), Error> {
        let missing: Vec<Missing> = self
            .limits
            .iter()
            .map(|&(limit, needed)| Missing {
                limit: limit.to_owned(),
                needed,
                available: available(limits, limit),
            })
            .filter(|m| m.available < m.needed)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::Unsupported(missing)) }
    }

    /// Limits to ask a device for: WebGPU's defaults where the adapter has them, and the adapter's own for the sizes
    /// of buffers and bindings.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the adapter does not suffice.
    pub fn device_limits(&self, adapter: &wgpu::Limits) -> Result<wgpu::Limits, Error> {
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
    PlanLimits {
        binding: limits.max_storage_buffer_binding_size.min(plan::PAGE),
        buffer: limits.max_buffer_size,
    }
}

fn available(limits: &wgpu::Limits, name: &str) -> u64 {
    match name {
        "max_bind_groups" => limits.max_bind_groups.into(),
        "max_storage_buffers_per_shader_stage" => limits.max_storage_buffers_per_shader_stage.into(),
        "max_uniform_buffers_per_shader_stage" => limits.max_uniform_buffers_per_shader_stage.into(),
        "max_dynamic_uniform_buffers_per_pipeline_layout" => {
            limits.max_dynamic_uniform_buffers_per_pipeline_layout.into()
        }
        "max_dynamic_storage_buffers_per_pipeline_layout" => {
            limits.max_dynamic_storage_buffers_per_pipeline_layout.into()
        }
        "max_uniform_buffer_binding_size" => limits.max_uniform_buffer_binding_size,
        "max_storage_buffer_binding_size" => limits.max_storage_buffer_binding_size,
        "max_buffer_size" => limits.max_buffer_size,
        "max_compute_workgroup_storage_size" => limits.max_compute_workgroup_storage_size.into(),
        "max_compute_invocations_per_workgroup" => limits.max_compute_invocations_per_workgroup.into(),
        "max_compute_workgroup_size_x" => limits.max_compute_workgroup_size_x.into(),
        _ => unreachable!("{name} is not among the required limits"),
    }
}
