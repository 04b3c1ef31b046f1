//! What the optimizer holds of a tensor from step to step, and where it lies.

use std::mem::offset_of;

use super::optimizer::GpuOptimizer;
use super::slices::TensorSlice;
use crate::kernel::tables::Tensor;
use crate::plan::layout::{self, ALIGNMENT, Ownership};
use crate::recipe::base::{Per, StateRow};
use crate::recipe::precision::Precision;
use crate::recipe::state::{Bytes, StateFormat};

pub(super) const PARAM: &str = "params";
/// The name of masters among the state.
pub(super) const MASTER: &str = "master";
/// The name of averages over steps among the state.
pub(super) const AVERAGE: &str = "average";
/// The name of the lower halves of masters among the state.
pub(super) const MASTER_LOW: &str = "master_low";
pub(super) const GRAD_SUM: &str = "grad_sum";
pub(super) const RATES: &str = "rates";

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

/// Two bytes each, in whole words.
pub(super) fn halves(values: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut bytes: Vec<u8> = values.flat_map(u16::to_le_bytes).collect();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The bf16 parameters of masters of which the lower halves are kept: rounded to the nearest, ties away from 0.
pub(super) fn upper_halves(masters: &[f32]) -> Vec<u8> {
    halves(masters.iter().map(|x| ((x.to_bits() >> 16) as u16).wrapping_add(u16::from(x.to_bits() & 0x8000 > 0))))
}

/// The masters of these parameters and lower halves.
pub(super) fn joined(params: &[u8], low: &[u8], count: usize) -> Vec<f32> {
    let halves = |bytes: &[u8]| -> Vec<u16> { bytemuck::pod_collect_to_vec(bytes) };
    let both = halves(params).into_iter().zip(halves(low)).take(count);
    both.map(|(half, low)| f32::from_bits(u32::from(half.wrapping_sub(low >> 15)) << 16 | u32::from(low))).collect()
}

/// How a number of a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// By itself.
    Float(Precision),
    /// In a byte, with three others.
    Byte(Bytes),
    /// The lower half of an f32, which means nothing by itself.
    Low,
}

impl Stored {
    pub(super) const F32: Self = Self::Float(Precision::F32);

    /// A state per coordinate.
    pub(super) fn of(state: &StateRow, format: StateFormat) -> Self {
        match format {
            StateFormat::F32 => Self::F32,
            StateFormat::EightBit => Self::Byte(state.bytes()),
        }
    }

    /// Bytes of so many numbers, in whole words.
    pub(super) fn size(self, count: u64) -> u64 {
        let each = match self {
            Self::Float(precision) => precision.bytes(),
            Self::Byte(_) => 1,
            Self::Low => 2,
        };
        (each * count).next_multiple_of(4)
    }

    pub(super) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Float(precision) => precision.encode(values),
            Self::Byte(bytes) => bytes.encode(values),
            Self::Low => halves(values.iter().map(|x| x.to_bits() as u16)),
        }
    }

    /// The first `count` numbers.
    pub(super) fn decode(self, stored: &[u8], count: usize) -> Vec<f32> {
        match self {
            Self::Float(precision) => precision.decode(stored, count),
            Self::Byte(bytes) => bytes.decode(stored, count),
            Self::Low => unreachable!("the lower halves are read with the upper ones"),
        }
    }
}

impl GpuOptimizer {
    /// A tensor's range of a buffer.
    pub(super) fn range_of(&self, tensor: &layout::Tensor, buffer: usize, format: Precision) -> TensorSlice<'_> {
        let [offset, size] = [tensor.offset, tensor.numel].map(|count| format.bytes() * count);
        TensorSlice { buffer: &self.buffers[buffer], offset, size: size.next_multiple_of(4) }
    }

    /// What the optimizer holds of a tensor from step to step. Where an arena stores parameters in two bytes, their masters stand for them if
    /// there are any.
    pub(super) fn held(&self, index: usize) -> Vec<Held<'_>> {
        let tensor = &self.plan.tensors[index];
        let (spec, block) = (&tensor.spec, &self.storage.blocks[tensor.block]);
        let words = |buffer: usize| self.range_of(tensor, buffer, Precision::F32);
        let master = self.master(index);
        let mut all = Vec::new();
        if self.plan.ownership == Ownership::Arenas {
            let (slice, format) = self.held_param(index);
            all.push(Held { what: PARAM, shape: &spec.shape[..], slice, format: Stored::Float(format), by_row: true });
        }
        let mut add = |what, shape, slice, format, by_row| {
            all.push(Held { what, shape, slice, format, by_row });
        };
        let is_given = self.plan.ownership == Ownership::Stateless;
        let (base, format, splits) = (self.plan.base_of(tensor), self.plan.state_of(tensor), self.plan.splits);
        let states = if is_given { &[] } else { base.row().states };
        for (at, state) in states.iter().enumerate() {
            let (shape, by_row) = (state.per.shape(spec), state.per == Per::Coordinate || state.per.is_row(spec));
            // Alone, or one of the pair that lies tensor after tensor.
            let shared = if base.has_pairs(splits) { 2 } else { 1 };
            match state.per {
                Per::Coordinate => {
                    let buffer = &self.buffers[block.states[at / shared]];
                    let count = base.state_bindings(splits)[at / shared].states.len() as u64;
                    let other = (at % shared) as u64 * tensor.numel.next_multiple_of(ALIGNMENT);
                    let stored = Stored::of(state, format);
                    let offset = format.bytes() * (count * tensor.offset + other);
                    let slice = TensorSlice { buffer, offset, size: stored.size(tensor.numel) };
                    add(state.name, shape, slice, stored, by_row);
                }
                Per::Tensor => {
                    let first = states.iter().position(|state| state.per == Per::Tensor).unwrap_or(at);
                    add(state.name, shape, self.scalar_entry(index, at - first), Stored::F32, by_row);
                }
                _ => {
                    let (offset, size) = (4 * tensor.lines, 4 * shape.iter().product::<usize>() as u64);
                    let slice = TensorSlice { offset, size, ..words(block.states[at]) };
                    add(state.name, shape, slice, Stored::F32, by_row);
                }
            }
        }
        if let Some(low) = self.low(index) {
            add(MASTER_LOW, &spec.shape, low, Stored::Low, true);
        }
        if self.plan.average.is_some() {
            let format = self.plan.average_format();
            let slice = self.range_of(tensor, block.average, format);
            add(AVERAGE, &spec.shape, slice, Stored::Float(format), true);
        }
        let mut add = |what, shape, slice, by_row| add(what, shape, slice, Stored::F32, by_row);
        if let (Some(master), Ownership::Caller) = (master, self.plan.ownership) {
            add(MASTER, &spec.shape, master, true);
        }
        if self.plan.accumulates {
            add(GRAD_SUM, &spec.shape, words(block.sum), true);
        }
        if spec.components > 0 {
            let (offset, size) = (4 * u64::from(tensor.entry.rates), 4 * spec.components as u64);
            let slice = TensorSlice { buffer: &self.buffers[self.storage.rates], offset, size };
            add(RATES, std::slice::from_ref(&spec.components), slice, false);
        }
        all
    }

    /// Where a parameter of the arenas lies, or its master, and how it is stored.
    pub(super) fn held_param(&self, index: usize) -> (TensorSlice<'_>, Precision) {
        let (tensor, format) = (&self.plan.tensors[index], self.plan.precision);
        let stored = || (self.range_of(tensor, self.storage.blocks[tensor.block].param, format), format);
        self.master(index).map_or_else(stored, |master| (master, Precision::F32))
    }

    /// Where a state per tensor lies: there are up to two.
    pub(super) fn scalar_entry(&self, tensor: usize, number: usize) -> TensorSlice<'_> {
        let places = [offset_of!(Tensor, accumulator), offset_of!(Tensor, largest_lr)];
        self.entry(tensor, places[number], 4)
    }

    /// One of these.
    pub(super) fn find(&self, index: usize, what: &str) -> Option<Held<'_>> {
        self.held(index).into_iter().find(|held| held.what == what)
    }

    /// Where the lower halves of a tensor's masters lie, if they are kept alone.
    pub(super) fn low(&self, index: usize) -> Option<TensorSlice<'_>> {
        let tensor = &self.plan.tensors[index];
        let buffer = self.storage.blocks[tensor.block].low;
        self.plan.splits.then(|| self.range_of(tensor, buffer, Precision::Bf16))
    }

    /// Where a tensor's master lies, if it has one.
    pub(super) fn master(&self, index: usize) -> Option<TensorSlice<'_>> {
        let tensor = &self.plan.tensors[index];
        let buffer = self.storage.blocks[tensor.block].master;
        self.has_masters().then(|| self.range_of(tensor, buffer, Precision::F32))
    }
}
