//! What an optimizer holds of a tensor from step to step, and where it lies.

use std::mem::offset_of;

use super::layout::{ALIGNMENT, Ownership, Plan};
use super::storage::Storage;
use crate::kernel::tables::{self, HEADER_BYTES, TENSOR_BYTES};
use crate::recipe::base::{Per, StateRow};
use crate::recipe::precision::Precision;
use crate::recipe::state::{Code, StateFormat};

pub(crate) const PARAM: &str = "params";
/// The name of masters among the state.
pub(crate) const MASTER: &str = "master";
/// The name of averages over steps among the state.
pub(crate) const AVERAGE: &str = "average";
/// The name of the lower halves of masters among the state.
pub(crate) const MASTER_LOW: &str = "master_low";
pub(crate) const GRAD_SUM: &str = "grad_sum";
pub(crate) const RATES: &str = "rates";

/// What an optimizer holds of a tensor in one place.
#[derive(Debug, Clone)]
pub(crate) struct Part<'a> {
    /// [`PARAM`], the name of a state, [`GRAD_SUM`] or [`RATES`].
    pub what: &'static str,
    pub shape: &'a [usize],
    pub place: Range,
    /// How it is stored.
    pub format: Stored,
    /// Whether each row of the tensor has its part.
    pub by_row: bool,
}

/// A range of a buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The index of the buffer in the storage.
    pub buffer: usize,
    pub offset: u64,
    pub size: u64,
}

/// Two bytes each, in whole words.
pub(crate) fn halves(values: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut bytes: Vec<u8> = values.flat_map(u16::to_le_bytes).collect();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The bf16 parameters of masters of which the lower halves are kept: rounded to the nearest, ties away from 0.
pub(crate) fn upper_halves(masters: &[f32]) -> Vec<u8> {
    halves(masters.iter().map(|x| ((x.to_bits() >> 16) as u16).wrapping_add(u16::from(x.to_bits() & 0x8000 > 0))))
}

/// The masters of these parameters and lower halves.
pub(crate) fn joined(params: &[u8], low: &[u8], count: usize) -> Vec<f32> {
    let halves = |bytes: &[u8]| -> Vec<u16> { bytemuck::pod_collect_to_vec(bytes) };
    let both = halves(params).into_iter().zip(halves(low)).take(count);
    // A parameter of 0 that was written by others has the lower half of another master.
    let own = both.map(|(half, low)| (half, if half & 0x7fff == 0 && low >= 0x8000 { 0 } else { low }));
    own.map(|(half, low)| f32::from_bits(u32::from(half.wrapping_sub(low >> 15)) << 16 | u32::from(low))).collect()
}

/// How a number of a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// By itself.
    Float(Precision),
    /// In a byte, with three others.
    Byte(Code),
    /// The lower half of an f32, which means nothing by itself.
    Low,
}

impl Stored {
    pub(crate) const F32: Self = Self::Float(Precision::F32);

    /// The name of the format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float(precision) => precision.name(),
            Self::Byte(Code::Signed) => "8bit",
            Self::Byte(Code::Squares) => "8bit squares",
            Self::Low => "lower half of f32",
        }
    }

    /// A state per coordinate.
    pub(crate) fn of(state: &StateRow, format: StateFormat) -> Self {
        match format {
            StateFormat::F32 => Self::F32,
            StateFormat::EightBit => Self::Byte(state.code()),
        }
    }

    /// Bytes of a number.
    pub(crate) fn each(self) -> u64 {
        match self {
            Self::Float(precision) => precision.bytes(),
            Self::Byte(_) => 1,
            Self::Low => 2,
        }
    }

    /// Bytes of so many numbers, in whole words.
    pub(crate) fn size(self, count: u64) -> u64 {
        (self.each() * count).next_multiple_of(4)
    }

    pub(crate) fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::Float(precision) => precision.encode(values),
            Self::Byte(bytes) => bytes.encode(values),
            Self::Low => halves(values.iter().map(|x| x.to_bits() as u16)),
        }
    }

    /// The first `count` numbers.
    pub(crate) fn decode(self, stored: &[u8], count: usize) -> Vec<f32> {
        match self {
            Self::Float(precision) => precision.decode(stored, count),
            Self::Byte(bytes) => bytes.decode(stored, count),
            Self::Low => unreachable!("the lower halves are read with the upper ones"),
        }
    }
}

/// Where a tensor of a plan lies.
#[derive(Clone, Copy)]
pub(crate) struct Holder<'a> {
    pub plan: &'a Plan,
    pub storage: &'a Storage,
    /// The index of the tensor in the plan.
    pub tensor: usize,
}

impl<'a> Holder<'a> {
    /// The range of a buffer with a number for each coordinate.
    pub(crate) fn range(self, buffer: usize, format: Stored) -> Range {
        let tensor = &self.plan.tensors[self.tensor];
        Range { buffer, offset: format.each() * tensor.offset, size: format.size(tensor.numel) }
    }

    /// A parameter, or a gradient, as the caller sees it.
    pub(crate) fn stored(self, which: fn(&super::storage::BlockBuffers) -> usize) -> Range {
        let block = &self.storage.blocks[self.plan.tensors[self.tensor].block];
        self.range(which(block), Stored::Float(self.plan.precision))
    }

    /// A parameter of the arenas, or its master, and how it is stored.
    pub(crate) fn param(self) -> (Range, Stored) {
        let stored = || (self.stored(|block| block.param), Stored::Float(self.plan.precision));
        self.master().map_or_else(stored, |master| (master, Stored::F32))
    }

    /// The master of the tensor. `None` without whole masters.
    pub(crate) fn master(self) -> Option<Range> {
        let buffer = self.storage.blocks[self.plan.tensors[self.tensor].block].master;
        self.plan.has_masters().then(|| self.range(buffer, Stored::F32))
    }

    /// The lower halves of the masters. `None` unless masters are split.
    pub(crate) fn low(self) -> Option<Range> {
        let buffer = self.storage.blocks[self.plan.tensors[self.tensor].block].low;
        self.plan.splits.then(|| self.range(buffer, Stored::Low))
    }

    /// A member of the entry in the table of tensors.
    pub(crate) fn entry(self, member: usize, size: u64) -> Range {
        let offset = HEADER_BYTES + TENSOR_BYTES * self.tensor as u64 + member as u64;
        Range { buffer: self.storage.tensors, offset, size }
    }

    /// A state per tensor: there are up to two.
    pub(crate) fn scalar(self, number: usize) -> Range {
        let places = [offset_of!(tables::Tensor, accumulator), offset_of!(tables::Tensor, largest_lr)];
        self.entry(places[number], 4)
    }

    /// The states that the optimizer holds.
    pub(crate) fn states(self) -> Vec<Part<'a>> {
        let Self { plan, storage, tensor: index } = self;
        let tensor = &plan.tensors[index];
        let (spec, block) = (&tensor.spec, &storage.blocks[tensor.block]);
        let (base, format, splits) = (plan.base_of(tensor), plan.state_of(tensor), plan.splits);
        if plan.ownership == Ownership::Stateless {
            return Vec::new();
        }
        let states = base.row().states;
        // Alone, or one of the pair that lies tensor after tensor.
        let shared = if base.has_pairs(splits) { 2 } else { 1 };
        let first = states.iter().position(|state| state.per == Per::Tensor).unwrap_or(states.len());
        let part = |(at, state): (usize, &StateRow)| {
            let (shape, by_row) = (state.per.shape(spec), state.per == Per::Coordinate || state.per.is_row(spec));
            let (place, format) = match state.per {
                Per::Coordinate => {
                    let (buffer, stored) = (block.states[at / shared], Stored::of(state, format));
                    let count = base.state_bindings(splits)[at / shared].states.len() as u64;
                    let other = (at % shared) as u64 * tensor.numel.next_multiple_of(ALIGNMENT);
                    let offset = format.bytes() * (count * tensor.offset + other);
                    (Range { buffer, offset, size: stored.size(tensor.numel) }, stored)
                }
                Per::Tensor => (self.scalar(at - first), Stored::F32),
                _ => {
                    let size = 4 * shape.iter().product::<usize>() as u64;
                    (Range { buffer: block.states[at], offset: 4 * tensor.lines, size }, Stored::F32)
                }
            };
            Part { what: state.name, shape, place, format, by_row }
        };
        states.iter().enumerate().map(part).collect()
    }

    /// Everything that the optimizer holds from step to step. Where an arena stores parameters in two bytes, their masters stand for them if
    /// there are any.
    pub(crate) fn all(self) -> Vec<Part<'a>> {
        let Self { plan, storage, tensor: index } = self;
        let tensor = &plan.tensors[index];
        let (spec, block) = (&tensor.spec, &storage.blocks[tensor.block]);
        let of_coordinates = |what, place, format| Part { what, shape: &spec.shape, place, format, by_row: true };
        let arenas = plan.ownership == Ownership::Arenas;
        let (param, format) = self.param();
        let mut all: Vec<_> = arenas.then(|| of_coordinates(PARAM, param, format)).into_iter().collect();
        all.extend(self.states());
        all.extend(self.low().map(|low| of_coordinates(MASTER_LOW, low, Stored::Low)));
        if plan.average.is_some() {
            let format = Stored::Float(plan.average_format());
            all.push(of_coordinates(AVERAGE, self.range(block.average, format), format));
        }
        all.extend(self.master().filter(|_| !arenas).map(|master| of_coordinates(MASTER, master, Stored::F32)));
        if plan.accumulates {
            all.push(of_coordinates(GRAD_SUM, self.range(block.sum, Stored::F32), Stored::F32));
        }
        if spec.components > 0 {
            let (offset, size) = (4 * u64::from(tensor.entry.rates), 4 * spec.components as u64);
            let place = Range { buffer: storage.rates, offset, size };
            let shape = std::slice::from_ref(&spec.components);
            all.push(Part { what: RATES, shape, place, format: Stored::F32, by_row: false });
        }
        all
    }
}
