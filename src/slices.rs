//! Ranges of buffers that hold a tensor, and what may be wrong with them.

use crate::error::Error;
use crate::plan::Plan;

/// A tensor's range of a buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorSlice<'a> {
    /// The buffer. Others may lie in it too.
    pub buffer: &'a wgpu::Buffer,
    /// Where the tensor begins: a multiple of the device's `min_storage_buffer_offset_alignment`.
    pub offset: u64,
    /// Four times its number of coordinates.
    pub size: u64,
}

/// A tensor's parameter and gradient in the caller's buffers, for one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorBuffers<'a> {
    /// Changed in place.
    pub param: TensorSlice<'a>,
    /// `None` leaves the tensor out of this step.
    pub grad: Option<TensorSlice<'a>>,
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

/// Refuses slices that cannot be bound or would overlap.
pub(crate) fn validate(plan: &Plan, buffers: &[TensorBuffers<'_>], alignment: u64) -> Result<(), Error> {
    if buffers.len() != plan.order.len() {
        return Err(Error::Plan(format!(
            "buffers of {} tensors were given, but the optimizer has {}",
            buffers.len(),
            plan.order.len()
        )));
    }
    let mut used = Vec::new();
    for (spec, buffers) in buffers.iter().enumerate() {
        let tensor = &plan.tensors[plan.order[spec]];
        let slices = [("parameter", Some(buffers.param)), ("gradient", buffers.grad)];
        for (what, slice) in slices.into_iter().filter_map(|(what, slice)| Some((what, slice?))) {
            let refuse = |reason| Err(Error::Slice { tensor: tensor.spec.name.clone(), what, reason });
            if slice.size != tensor.bytes() {
                return refuse(format!(
                    "{} bytes given, {} needed for shape {:?} of f32",
                    slice.size,
                    tensor.bytes(),
                    tensor.spec.shape
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
            if !slice.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
                return refuse(format!("its buffer lacks STORAGE, it has {:?}", slice.buffer.usage()));
            }
            used.push((slice.buffer, slice.offset, slice.size, what, &tensor.spec.name));
        }
    }
    used.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    for pair in used.windows(2) {
        let [a, b] = [&pair[0], &pair[1]];
        if a.0 == b.0 && a.1 + a.2 > b.1 {
            return Err(Error::Slice {
                tensor: b.4.clone(),
                what: b.3,
                reason: format!("it overlaps the {} of tensor `{}`", a.3, a.4),
            });
        }
    }
    Ok(())
}
