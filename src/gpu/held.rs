//! What the optimizer holds of a tensor from step to step, as ranges of its buffers.

use super::optimizer::GpuOptimizer;
use super::slices::TensorSlice;
pub(super) use crate::plan::held::{AVERAGE, GRAD_SUM, MASTER, MASTER_LOW, PARAM, RATES, Stored, joined, upper_halves};
use crate::plan::held::{Holder, Part, Range};

/// What the optimizer holds of a tensor in one place.
pub(super) struct Held<'a> {
    /// [`PARAM`], the name of a state, [`GRAD_SUM`] or [`RATES`].
    pub what: &'static str,
    pub shape: &'a [usize],
    pub slice: TensorSlice<'a>,
    /// How it is stored.
    pub format: Stored,
    /// Whether each row of the tensor has its part.
    pub by_row: bool,
}

impl GpuOptimizer {
    pub(super) fn holder(&self, tensor: usize) -> Holder<'_> {
        Holder { plan: &self.plan, storage: &self.storage, tensor }
    }

    /// A range of one of the optimizer's buffers.
    pub(super) fn slice_of(&self, Range { buffer, offset, size }: Range) -> TensorSlice<'_> {
        TensorSlice { buffer: &self.buffers[buffer], offset, size }
    }

    /// What the optimizer holds of a tensor from step to step. Where an arena stores parameters in two bytes, their masters stand for them if
    /// there are any.
    pub(super) fn held(&self, tensor: usize) -> Vec<Held<'_>> {
        let held = |Part { what, shape, place, format, by_row }| Held {
            what,
            shape,
            slice: self.slice_of(place),
            format,
            by_row,
        };
        self.holder(tensor).all().into_iter().map(held).collect()
    }

    /// Where a parameter of the arenas lies, or its master, and how it is stored.
    pub(super) fn held_param(&self, tensor: usize) -> (TensorSlice<'_>, Stored) {
        let (place, format) = self.holder(tensor).param();
        (self.slice_of(place), format)
    }

    /// Where a state per tensor lies: there are up to two.
    pub(super) fn scalar_entry(&self, tensor: usize, number: usize) -> TensorSlice<'_> {
        self.slice_of(self.holder(tensor).scalar(number))
    }

    /// One of these.
    pub(super) fn find(&self, tensor: usize, what: &str) -> Option<Held<'_>> {
        self.held(tensor).into_iter().find(|held| held.what == what)
    }

    /// Where the lower halves of a tensor's masters lie, if they are kept alone.
    pub(super) fn low(&self, tensor: usize) -> Option<TensorSlice<'_>> {
        self.holder(tensor).low().map(|low| self.slice_of(low))
    }

    /// Where a tensor's master lies, if it has one.
    pub(super) fn master(&self, tensor: usize) -> Option<TensorSlice<'_>> {
        self.holder(tensor).master().map(|master| self.slice_of(master))
    }
}
