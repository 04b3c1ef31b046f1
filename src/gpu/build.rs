//! Buffers, pipelines and tables of an optimizer.

use std::sync::Arc;

use super::adapter::{self, Probe};
use super::custom;
use super::optimizer::{Counts, GpuOptimizer};
use super::pipelines::Pipelines;
use super::requirements::{Requirements, plan_limits};
use super::ring::Ring;
use super::scope;
use super::slices::new_buffer;
use super::submissions::Submissions;
use super::telemetry::Mailbox;
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::{Chunk, STRIDE, table};
use crate::plan::assemble::assemble;
use crate::plan::layout::{Ownership, Plan, RATES, ROWS};
use crate::plan::program::Usage;
use crate::plan::scalars;
use crate::plan::storage::Storage;
use crate::recipe::groups::ParamGroups;
use crate::recipe::matrix::Matmul;
use crate::recipe::spec::TensorSpec;

/// What an error of wgpu means to whoever wants an optimizer.
fn refusal(probe: &Probe, error: wgpu::Error, device: &wgpu::Device, plan: &Plan) -> Error {
    let adapter = adapter::describe(&device.adapter_info());
    match (error, probe.check()) {
        // First: some lacks of memory lose the device as well.
        (wgpu::Error::OutOfMemory { source }, _) => {
            Error::OutOfMemory { adapter, needed: plan.memory(), reason: source.to_string() }
        }
        (_, Err(lost)) => lost,
        (error, Ok(())) => Error::Gpu(format!("{error} ({adapter})")),
    }
}

impl GpuOptimizer {
    pub(super) async fn build(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        specs: &[TensorSpec],
        groups: ParamGroups,
        ownership: Ownership,
        compiled: Option<Pipelines>,
    ) -> Result<Self> {
        // On other hosts, naga has already checked the custom texts.
        if cfg!(target_arch = "wasm32") {
            groups.validate()?;
            custom::check(device, &groups).await?;
        }
        let limits = device.limits();
        Requirements::new(specs, groups.clone())?.check(&limits)?;
        let plan = Plan::new(specs, &groups, ownership, plan_limits(&limits))?;
        let matmul = groups.matmul.unwrap_or_else(|| adapter::matmul(device));
        let feature = match matmul {
            Matmul::TilesF16 => "a device with the feature SHADER_F16",
            _ => "a device with the feature SUBGROUP on an adapter with subgroups of 8",
        };
        let refused = Error::MissingFeature { what: format!("matrix multiplication by {matmul:?}"), feature };
        ensure!(adapter::supports(device, matmul), refused);
        if compiled.is_none() {
            groups.recipes().iter().for_each(|recipe| recipe.base.warn());
        }
        let probe = Probe::new(device);
        let mut storage = Storage::new(&plan);
        let shape = groups.launch_shape.unwrap_or_else(|| adapter::launch_shape(device));
        let stages = assemble(&plan, &storage, limits.max_compute_workgroups_per_dimension, (matmul, shape));
        storage.fill(storage.tensors, &scalars::tensors(&plan, &groups));
        storage.fill(storage.chunks, &table(&plan.chunks));
        storage.fill(storage.grids, &scalars::grids(&stages.all));
        if plan.rates > 0 {
            storage.fill(storage.rates, bytemuck::cast_slice(&[1.0f32; RATES as usize]));
        }
        let create = || storage.buffers.iter().map(|buffer| create(device, buffer)).collect::<Vec<_>>();
        let (buffers, error) = scope::errors(device, scope::ALL, create);
        if let Some(error) = error.await {
            let refusal = refusal(&probe, error, device, &plan);
            // A browser would keep the memory until it collects garbage.
            buffers.iter().for_each(wgpu::Buffer::destroy);
            probe.buffer().destroy();
            return Err(refusal);
        }
        let finish = || {
            // Contents take memory of the host, of which the buffers may have left none.
            for (buffer, to) in
                storage.buffers.iter_mut().zip(&buffers).filter(|(buffer, _)| !buffer.contents.is_empty())
            {
                queue.write_buffer(to, 0, bytemuck::cast_slice(&std::mem::take(&mut buffer.contents)));
            }
            let pipelines = compiled.unwrap_or_else(|| Pipelines::new(device, &groups));
            let (compiled, refused) = pipelines.compile(&stages.kernels);
            let pairs = 1 + u64::from(plan.accumulates) + u64::from(plan.has_masters());
            let (rows, chunks) = match ownership {
                // Tensors that were added later have scalars of their own.
                Ownership::Arenas => (groups.row_count() + plan.tensors.len().min(ROWS), 1),
                // A step that needs more, as where each tensor lies in a buffer of its own, makes room for it.
                _ => (groups.row_count() + stages.all.len(), pairs * plan.chunks.len() as u64),
            };
            let table_bytes = size_of::<Chunk>() as u64 * chunks;
            let bound = [storage.grids, storage.chunks, storage.tensors, storage.rates];
            let bound = bound.map(|index| buffers[index].clone());
            // When tensors are resized, a uniform for each of their parts.
            let ring = Ring::new(pipelines.clone(), bound, STRIDE * rows.max(5) as u64 + table_bytes, table_bytes);
            let (steps, has_sum) = (vec![0; plan.tensors.len()], vec![false; plan.tensors.len()]);
            let optimizer = Self {
                device: device.clone(),
                queue: queue.clone(),
                initial: groups.recipes().to_vec(),
                groups,
                plan,
                stages,
                storage,
                buffers,
                pipelines,
                compiled,
                ring,
                probe,
                bind_groups: Default::default(),
                prepared: None,
                counts: Counts { steps, has_sum, recorded_weight: Some(1.0), ..Counts::default() },
                grad_scale: 1.0,
                weight: 1.0,
                submissions: Submissions::default(),
                evaluating: false,
                mailbox: Mailbox::default(),
                reported: Arc::default(),
            };
            (optimizer, refused)
        };
        let ((optimizer, refused), error) = scope::errors(device, scope::ALL, finish);
        if let Some(error) = error.await.or(refused) {
            let refusal = refusal(&optimizer.probe, error, device, &optimizer.plan);
            optimizer.destroy();
            return Err(refusal);
        }
        log::debug!(
            "{} tensors, {} parameters, {}",
            optimizer.plan.tensors.len(),
            optimizer.plan.numel(),
            optimizer.cost(),
        );
        Ok(optimizer)
    }
}

/// A new buffer, which wgpu clears: state begins at zero.
fn create(device: &wgpu::Device, buffer: &crate::plan::program::Buffer) -> wgpu::Buffer {
    use wgpu::BufferUsages as To;
    let usage = match buffer.usage {
        Usage::Storage => To::STORAGE,
        Usage::Uniform => To::UNIFORM,
        Usage::StorageAndUniform => To::STORAGE | To::UNIFORM,
    };
    new_buffer(device, &buffer.label, buffer.size, usage | To::COPY_SRC | To::COPY_DST)
}
