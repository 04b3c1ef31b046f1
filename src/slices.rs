//! Ranges of buffers that hold a tensor, and what may be wrong with them.

use crate::error::Error;
use crate::plan::{Ownership, Plan, Tensor};
use crate::precision::Precision;
use crate::ranges::{check, finite_non_negative};

/// A tensor's range of a buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorSlice<'a> {
    /// The buffer. Others may lie in it too.
    pub buffer: &'a wgpu::Buffer,
    /// Where the tensor begins: a multiple of the device's `min_storage_buffer_offset_alignment`.
    pub offset: u64,
    /// Four times its number of coordinates, or twice at a [`Precision`] of two bytes, rounded up to a multiple of 4:
    /// behind an odd number of coordinates, the last two bytes of their word are the tensor's too. That of whole
    /// vectors of four coordinates says that the bytes behind the last one belong to the tensor too and may be
    /// overwritten; it is then reached four coordinates at a time, whatever its size.
    pub size: u64,
}

/// A tensor in the caller's buffers, for one step. It converts into the `Option` that
/// [`GpuOptimizer::record_with`](crate::GpuOptimizer::record_with) takes.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct TensorBuffers<'a> {
    /// Changed in place.
    pub param: TensorSlice<'a>,
    /// Its gradient.
    pub grad: TensorSlice<'a>,
    /// The state, for an optimizer [without one](crate::GpuOptimizer::stateless): `exp_avg` and, under AdamW,
    /// `exp_avg_sq`; `momentum_buffer` under Muon and AdaGO; with sizes rounded up to multiples of 16. Then `accumulator`
    /// under AdaGO, 4 bytes of a buffer with `COPY_SRC` and `COPY_DST`. Changed in place. Empty for other optimizers.
    pub state: &'a [TensorSlice<'a>],
    /// The learning rate in this step, in place of the group's; that of a fallback changes in proportion.
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
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: self.buffer,
            offset: self.offset,
            size: std::num::NonZeroU64::new(self.size),
        })
    }
}

/// A tensor as one of the kernels' bindings has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub slice: TensorSlice<'a>,
    pub precision: Precision,
}

impl Stored<'_> {
    /// Whether it is reached four coordinates at a time.
    pub(crate) fn is_vectorized(&self, tensor: &Tensor) -> bool {
        self.slice.size == padded(tensor, self.precision)
    }
}

/// Bytes of a tensor, rounded up to whole vectors of four coordinates.
fn padded(tensor: &Tensor, precision: Precision) -> u64 {
    precision.bytes() * tensor.numel.next_multiple_of(4)
}

/// Refuses slices that cannot be bound or would overlap, and learning rates out of range.
pub(crate) fn validate(
    plan: &Plan,
    buffers: &[Option<TensorBuffers<'_>>],
    alignment: u64,
) -> Result<(), Error> {
    if buffers.len() != plan.order.len() {
        return Err(Error::Plan(format!(
            "buffers of {} tensors were given, but the optimizer has {}",
            buffers.len(),
            plan.order.len()
        )));
    }
    let mut used = Vec::new();
    for (spec, buffers) in buffers.iter().enumerate().filter_map(|(spec, b)| Some((spec, b.as_ref()?))) {
        let tensor = &plan.tensors[plan.order[spec]];
        if let Some(lr) = buffers.lr {
            check("lr", lr, finite_non_negative)?;
        }
        let names = match plan.ownership {
            Ownership::Stateless => {
                let base = plan.base_of(tensor);
                base.state_names().iter().chain(base.scalar_names()).copied().collect()
            }
            _ => Vec::new(),
        };
        if buffers.state.len() != names.len() {
            return Err(Error::Slice {
                tensor: tensor.spec.name.clone(),
                what: "state",
                reason: format!("{} slices given, {} needed", buffers.state.len(), names.len()),
            });
        }
        let state = names.iter().copied().zip(buffers.state.iter().copied());
        for (what, slice) in
            [("parameter", buffers.param), ("gradient", buffers.grad)].into_iter().chain(state)
        {
            let refuse = |reason| Err(Error::Slice { tensor: tensor.spec.name.clone(), what, reason });
            let is_state = !matches!(what, "parameter" | "gradient");
            let needed = match what {
                "parameter" | "gradient" => (plan.precision.bytes() * tensor.numel).next_multiple_of(4),
                "accumulator" => 4,
                _ => padded(tensor, Precision::F32),
            };
            if slice.size != needed && (is_state || slice.size != padded(tensor, plan.precision)) {
                return refuse(format!(
                    "{} bytes given, {needed} needed for shape {:?} of {}",
                    slice.size,
                    tensor.spec.shape,
                    if is_state { Precision::F32.name() } else { plan.precision.name() }
                ));
            }
            if slice.offset.checked_add(slice.size).is_none_or(|end| end > slice.buffer.size()) {
                return refuse(format!(
                    "offset {} and {} bytes reach beyond the buffer's {}",
                    slice.offset,
                    slice.size,
                    slice.buffer.size()
                ));
            }
            if !slice.offset.is_multiple_of(alignment) {
                return refuse(format!("offset {} is no multiple of {alignment}", slice.offset));
            }
            let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let (usage, words) = match what {
                "accumulator" => (copies, "COPY_SRC or COPY_DST"),
                _ => (wgpu::BufferUsages::STORAGE, "STORAGE"),
            };
            if !slice.buffer.usage().contains(usage) {
                return refuse(format!("its buffer lacks {words}, it has {:?}", slice.buffer.usage()));
            }
            used.push((slice.buffer, slice.offset, slice.size, what, &tensor.spec.name));
        }
    }
    // Gradients are only read: two tensors may have the same.
    used.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut before: [Option<usize>; 2] = [None, None];
    for (i, slice) in used.iter().enumerate() {
        let read = slice.3 == "gradient";
        let reaches = |at: &usize| used[*at].0 == slice.0 && used[*at].1 + used[*at].2 > slice.1;
        let [read_before, written_before] = before;
        let other = written_before.filter(reaches).or(read_before.filter(reaches).filter(|_| !read));
        if let Some(other) = other.map(|at| &used[at]) {
            return Err(Error::Slice {
                tensor: slice.4.clone(),
                what: slice.3,
                reason: format!("it overlaps the {} of tensor `{}`", other.3, other.4),
            });
        }
        let last = &mut before[usize::from(!read)];
        if !last.is_some_and(|at| used[at].0 == slice.0 && used[at].1 + used[at].2 > slice.1 + slice.2) {
            *last = Some(i);
        }
    }
    Ok(())
}
