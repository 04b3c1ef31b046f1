//! Ranges of buffers that hold a tensor, and what may be wrong with them.

use std::num::NonZeroU64;

use wgpu::BufferUsages as To;

use crate::error::{Error, Result, ensure};
use crate::plan::layout::{ALIGNMENT, Ownership, Plan};
use crate::recipe::base::{BaseKind, Per, StateBinding};
use crate::recipe::precision::Precision;
use crate::recipe::ranges::{NOT_NEGATIVE, check};
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::StateFormat;

/// A tensor's range of a buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorSlice<'a> {
    /// The buffer. Other tensors may lie in it too.
    pub buffer: &'a wgpu::Buffer,
    /// First byte of the tensor: a multiple of the device's `min_storage_buffer_offset_alignment`.
    pub offset: u64,
    /// Size in bytes: 4 per coordinate, or 2 at a [`Precision`] of two bytes, rounded up to a multiple of 4.
    ///
    /// It may also be rounded up to whole vectors of four coordinates. Kernels then read four coordinates at a time, which is faster, and
    /// may overwrite the padding.
    pub size: u64,
}

/// A tensor in your buffers, for one step. It converts into the `Option` that
/// [`GpuOptimizer::record_with`](crate::GpuOptimizer::record_with) takes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TensorBuffers<'a> {
    /// The parameter. The step changes it in place.
    pub param: TensorSlice<'a>,
    /// The gradient. The step only reads it.
    pub grad: TensorSlice<'a>,
    /// The state for an optimizer [without one](crate::GpuOptimizer::stateless), zero before the first step. The step changes it in place.
    /// Empty for other optimizers. Sizes are those of states in f32. [`StateFormat::EightBit`](crate::StateFormat::EightBit) takes a quarter
    /// of them, except for states of rows, columns, inputs, outputs and tensors.
    ///
    /// - The states are those of [`state_names`](crate::GpuOptimizer::state_names), in this order: `exp_avg`, `exp_avg_sq` of AdamW.
    /// - Up to two states per coordinate have a slice each: 4 bytes per coordinate, rounded up to a multiple of 16.
    /// - With three or four states, each pair shares a slice. A third state has its own. In a shared slice, each state takes 4 bytes per
    ///   coordinate, rounded up to a multiple of 512.
    /// - States of rows, columns, inputs or outputs have a slice each: 4 bytes per number, rounded up to a multiple of 16.
    /// - States that are one number per tensor, such as the `accumulator` of AdaGO, come last. They have 4 bytes each, in a buffer with
    ///   `COPY_SRC` and `COPY_DST`, or with `STORAGE` in a compute pass.
    pub state: &'a [TensorSlice<'a>],
    /// The learning rate of this step, ≥ 0 and finite, in place of the group's and its schedule. The rate of a fallback changes in
    /// proportion.
    pub lr: Option<f64>,
}

impl<'a> TensorBuffers<'a> {
    /// A parameter and its gradient.
    pub fn new(param: TensorSlice<'a>, grad: TensorSlice<'a>) -> Self {
        Self { param, grad, state: &[], lr: None }
    }

    /// The same with its state.
    pub fn with_state(self, state: &'a [TensorSlice<'a>]) -> Self {
        Self { state, ..self }
    }

    /// The same with a learning rate of its own, ≥ 0 and finite.
    pub fn with_lr(self, lr: f64) -> Self {
        Self { lr: Some(lr), ..self }
    }
}

impl<'a> TensorSlice<'a> {
    /// A whole buffer.
    pub fn whole(buffer: &'a wgpu::Buffer) -> Self {
        Self { buffer, offset: 0, size: buffer.size() }
    }

    /// For a bind group entry.
    pub fn binding(&self) -> wgpu::BindingResource<'a> {
        let Self { buffer, offset, size } = *self;
        wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: NonZeroU64::new(size) })
    }

    /// Refuses a range beyond the buffer, an offset that is not a multiple of `alignment`, and a buffer without one of these usages.
    pub(super) fn check(&self, alignment: u64, usage: wgpu::BufferUsages) -> Result<(), String> {
        let Self { buffer, offset, size } = *self;
        let (all, has) = (buffer.size(), buffer.usage());
        let beyond = || format!("offset {offset} and {size} bytes reach beyond the buffer's {all}");
        ensure!(offset.checked_add(size).is_some_and(|end| end <= all), beyond());
        ensure!(offset.is_multiple_of(alignment), format!("offset {offset} is not a multiple of {alignment}"));
        let needed = || usage.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" or ");
        ensure!(has.contains(usage), format!("its buffer lacks {}, it has {has:?}", needed()));
        Ok(())
    }
}

/// A new buffer, which wgpu clears.
pub(super) fn new_buffer(device: &wgpu::Device, label: &str, size: u64, usage: To) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
}

/// The states that the caller gives of a tensor: the name of the first of a binding, what has a number of its own, and bytes. A pair lies
/// in one slice, the second state after the first, whose coordinates are rounded up to a multiple of 128.
fn given_states(base: BaseKind, format: StateFormat, spec: &TensorSpec) -> Vec<(&'static str, Per, u64)> {
    let bindings = base.state_bindings(false).iter().map(|StateBinding { states, per, .. }| {
        let numel = per.shape(spec).iter().product::<usize>() as u64;
        let each = if per.is_line() { 4 } else { format.bytes() };
        let size = match states.len() as u64 {
            1 => each * numel.next_multiple_of(4),
            count => each * count * numel.next_multiple_of(ALIGNMENT),
        };
        (states[0], *per, size)
    });
    bindings.chain(base.scalar_names().map(|name| (name, Per::Tensor, 4))).collect()
}

/// Refuses slices that cannot be bound or would overlap, and learning rates out of range. Within a pass, kernels copy what otherwise
/// commands copy.
pub(crate) fn validate(
    plan: &Plan,
    buffers: &[Option<TensorBuffers<'_>>],
    alignment: u64,
    in_pass: bool,
) -> Result<()> {
    let (given, needed) = (buffers.len(), plan.order.len());
    ensure!(given == needed, Error::Count { what: "tensors", given, needed });
    let mut used = Vec::new();
    for (&tensor, buffers) in plan.order.iter().zip(buffers) {
        let (tensor, Some(buffers)) = (&plan.tensors[tensor], buffers) else { continue };
        let name = &tensor.spec.name;
        buffers.lr.map_or(Ok(()), |lr| check("lr", lr, NOT_NEGATIVE))?;
        let is_given = plan.ownership == Ownership::Stateless;
        let states =
            if is_given { given_states(plan.base_of(tensor), plan.state_of(tensor), &tensor.spec) } else { Vec::new() };
        let (given, needed) = (buffers.state.len(), states.len());
        ensure!(given == needed, Error::slice(name, "state", format!("{given} slices given, {needed} needed")));
        let states =
            states.iter().zip(buffers.state).map(|(&(name, per, size), slice)| (name, Some((per, size)), *slice));
        let all = [("parameter", None, buffers.param), ("gradient", None, buffers.grad)];
        for (what, per, slice) in all.into_iter().chain(states) {
            let precision = if per.is_none() { plan.precision } else { Precision::F32 };
            let in_bytes =
                per.is_some_and(|(per, _)| per == Per::Coordinate && plan.state_of(tensor) != StateFormat::F32);
            // Whole vectors of four coordinates.
            let padded = precision.bytes() * tensor.numel.next_multiple_of(4);
            let (needed, usage) = match per {
                None => ((precision.bytes() * tensor.numel).next_multiple_of(4), To::STORAGE),
                Some((Per::Tensor, size)) if in_pass => (size, To::STORAGE),
                Some((Per::Tensor, size)) => (size, To::COPY_SRC | To::COPY_DST),
                Some((_, size)) => (size, To::STORAGE),
            };
            let refusal = |reason| Error::slice(name, what, reason);
            let format = if in_bytes { plan.state_of(tensor).name() } else { precision.name() };
            let (given, shape) = (slice.size, &tensor.spec.shape);
            ensure!(
                given == needed || (per.is_none() && given == padded),
                refusal(format!("{given} bytes given, {needed} needed for shape {shape:?} of {format}"))
            );
            slice.check(alignment, usage).map_err(refusal)?;
            let TensorSlice { buffer, offset, size } = slice;
            used.push(((buffer, offset), (buffer, offset + size), what, name));
        }
    }
    // Gradients are only read: two tensors may have the same.
    used.sort_unstable_by_key(|&(start, ..)| start);
    // Those before that reach furthest: read, and written. Buffers come in order.
    let mut furthest = [None; 2];
    for slice @ (start, end, what, tensor) in used {
        let reads = what == "gradient";
        let overlaps = |&(_, end, ..): &(_, _, _, _)| end > start;
        let [read, written] = furthest;
        if let Some((.., other, of)) = written.filter(overlaps).or(read.filter(overlaps).filter(|_| !reads)) {
            return Err(Error::slice(tensor, what, format!("it overlaps the {other} of tensor `{of}`")));
        }
        let last = &mut furthest[usize::from(!reads)];
        *last = last.filter(|&(_, last, ..)| last > end).or(Some(slice));
    }
    Ok(())
}
