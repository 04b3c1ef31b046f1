//! Where a step is recorded: an encoder, or a compute pass that its owner keeps open. A pass has no commands that clear and copy: there
//! kernels do it.

use super::pipelines::Pipelines;
use super::slices::TensorSlice;
use crate::kernel::catalog::Config;
use crate::plan::layout::WORKGROUP;
use crate::plan::stage::workgroups;

pub(super) enum Target<'a, 'e> {
    Encoder(&'a mut wgpu::CommandEncoder),
    Pass(&'a mut wgpu::ComputePass<'e>),
}

impl Target<'_, '_> {
    /// Records dispatches.
    pub(super) fn dispatch(&mut self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) {
        match self {
            Self::Encoder(encoder) => {
                let label = Some("wgpu-optim.step");
                record(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None }));
            }
            Self::Pass(pass) => record(pass),
        }
    }

    /// Records the clearing of a range that can be bound, whatever its size.
    pub(super) fn clear(&mut self, pipelines: &Pipelines, slice: TensorSlice<'_>) {
        let TensorSlice { buffer, offset, size } = slice;
        match self {
            Self::Encoder(encoder) => encoder.clear_buffer(buffer, offset, Some(size)),
            Self::Pass(pass) => {
                let limits = pipelines.device.limits();
                let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
                let most = limits.max_storage_buffer_binding_size / alignment * alignment;
                for first in (0..size).step_by(most as usize) {
                    let part = TensorSlice { offset: offset + first, size: most.min(size - first), ..slice };
                    let count = (part.size / 4).div_ceil(WORKGROUP) as u32;
                    let grid = workgroups(count, limits.max_compute_workgroups_per_dimension);
                    run(pass, pipelines, "transfer/clear", &[part], grid);
                }
            }
        }
    }

    /// Records the copy of a word.
    pub(super) fn copy_word(&mut self, pipelines: &Pipelines, from: TensorSlice<'_>, to: TensorSlice<'_>) {
        match self {
            Self::Encoder(encoder) => encoder.copy_buffer_to_buffer(from.buffer, from.offset, to.buffer, to.offset, 4),
            Self::Pass(pass) => {
                let alignment = u64::from(pipelines.device.limits().min_storage_buffer_offset_alignment);
                // The word is the last of a range that begins where it can be bound.
                let ranges = [from, to].map(|word| {
                    let offset = word.offset / alignment * alignment;
                    TensorSlice { offset, size: word.offset + 4 - offset, ..word }
                });
                run(pass, pipelines, "transfer/copy", &ranges, [1; 3]);
            }
        }
    }

    /// Calls back when the GPU is done; if the commands are dropped, drops the callback.
    pub(super) fn on_done(&self, callback: impl FnOnce() + Send + 'static) {
        match self {
            Self::Encoder(encoder) => encoder.on_submitted_work_done(callback),
            Self::Pass(pass) => pass.on_submitted_work_done(callback),
        }
    }
}

/// Dispatches a kernel that binds these ranges and no tables.
fn run(
    pass: &mut wgpu::ComputePass<'_>,
    pipelines: &Pipelines,
    entry: &'static str,
    ranges: &[TensorSlice<'_>],
    [x, y, z]: [u32; 3],
) {
    let bindings: Vec<u32> = (0..ranges.len() as u32).collect();
    let layout = pipelines.layout(&bindings);
    pass.set_pipeline(&pipelines.pipeline(&Config::default().kernel(entry), &[bindings, vec![], vec![]]));
    pass.set_bind_group(1, &pipelines.bind("transfer", &layout, (0..).zip(ranges.iter().copied())), &[]);
    pass.dispatch_workgroups(x, y, z);
}
