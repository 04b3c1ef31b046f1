//! Where everything lies: tensors → chunks → pages. Knows no wgpu.
//!
//! Tensors of one kind of recipe (a [`Class`]) lie side by side in arenas. A *page* is a range of an arena that fits
//! into one binding; a *chunk* is up to 4,096 consecutive coordinates of one tensor, the work of one workgroup. A
//! dispatch covers all chunks of a page, or all tensors of a class, so their number does not grow with the number of
//! tensors.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Missing, Result, ensure};
use crate::kernel::tables::{self, Chunk};
use crate::recipe::average::Average;
use crate::recipe::base::BaseKind;
use crate::recipe::groups::ParamGroups;
use crate::recipe::guard::Gradients;
use crate::recipe::matrix::Shape;
use crate::recipe::policy::{PolicyKind, Selects};
use crate::recipe::precision::{Precision, Rounding};
use crate::recipe::sampling::Sampling;
pub use crate::recipe::spec::CHUNK;
use crate::recipe::spec::TensorSpec;
use crate::recipe::state::StateFormat;

/// Invocations of a workgroup; `WORKGROUP` in `shaders/lib/tables.wgsl`.
pub const WORKGROUP: u64 = 256;
/// Parameter groups whose scalars one dispatch can tell apart; the length of `scalars` in `shaders/lib/tables.wgsl`.
pub const ROWS: usize = 64;
/// Bins of a histogram; `BINS` in `shaders/lib/tables.wgsl`.
pub const BINS: u64 = 2048;
/// Digits of a key and of an index, 11 bits each; `DIGITS` in `shaders/lib/search.wgsl`.
pub(crate) const DIGITS: u64 = 6;
/// Coordinates of a tensor that one workgroup searches after a miss, at most. It reads them up to 7 times, 2,048 per round, which takes
/// 7 × 8,192 × 0.8 µs = 46 ms on a GPU whose memory answers after 0.8 µs. Systems end dispatches that take seconds, and llvmpipe ends loops
/// after 65,535 rounds.
pub const SEARCHED: u64 = 1 << 24;
/// Coordinates of a row or column that a workgroup sums; `BLOCK` in `shaders/lib/lines.wgsl`.
pub(crate) const LINE_BLOCK: u64 = 1024;
/// Words of what is observed of a chunk, and of a tensor; `shaders/lib/observations.wgsl` lists them.
pub(crate) const OF_CHUNK: u64 = 10;
pub(crate) const OF_TENSOR: u64 = 16;
/// Tensors begin at multiples of this many coordinates, so that each can be bound alone, in two bytes too.
pub(crate) const ALIGNMENT: u64 = 128;
/// Factors of learning rates, at most; the length of `rates` in `shaders/lib/rates.wgsl`, in vectors of four.
pub const RATES: u64 = 4096;
/// Bytes of a page, at most: kernels count its words in 32 bits, and some drivers its bytes.
pub(crate) const PAGE: u64 = 1 << 31;

/// Who holds what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// The optimizer holds everything, in arenas.
    #[default]
    Arenas,
    /// The caller gives parameters and gradients each step; the optimizer holds the state.
    Caller,
    /// The caller gives the state as well.
    Stateless,
}

impl PlanLimits {
    /// What every device of WebGPU has: bindings of 128 MiB, buffers of 256 MiB.
    pub const WEBGPU: Self = Self { binding: 128 << 20, buffer: 256 << 20 };
    /// What most GPUs have: bindings of 2 GiB, buffers of 4 GiB.
    pub const LARGE: Self = Self { binding: 2 << 30, buffer: 4 << 30 };
}

/// The limits of a device that shape a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// Largest range of a buffer that can be bound, in bytes.
    pub binding: u64,
    /// Largest buffer, in bytes.
    pub buffer: u64,
}

/// A tensor's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// What the caller said.
    pub spec: TensorSpec,
    /// Coordinates, d.
    pub numel: u64,
    /// K of `mgup`; 0 under other policies.
    pub k: u64,
    /// Its row of step scalars.
    pub(crate) row: usize,
    /// Its arena block.
    pub block: usize,
    /// First coordinate's place in the block.
    pub offset: u64,
    /// Its chunks.
    pub chunks: Range<u32>,
    /// Its pages.
    pub pages: Range<usize>,
    /// How it is sampled, if it is.
    pub sampling: Option<Sampling>,
    /// Coordinates of a row.
    pub row_len: u64,
    /// Where the states of its rows or columns begin in its block's, if they have any.
    pub(crate) lines: u64,
    /// Its entry in the table of tensors, before the first step.
    pub(crate) entry: tables::Tensor,
}

impl Tensor {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        4 * self.numel
    }

    /// Whether many workgroups search it if its bracket missed, because it is too large for one or lies in several pages.
    pub(crate) fn is_searched_by_many(&self) -> bool {
        self.numel > SEARCHED || self.pages.len() > 1
    }

    /// Sums over blocks of its rows, and of its columns, where kernels need them.
    pub(crate) fn line_sums(&self) -> [u64; 2] {
        let (rows, columns) = (self.row_count(), self.row_len);
        let rows_of = u64::from(self.entry.sums_rows) * rows * columns.div_ceil(LINE_BLOCK);
        [rows_of, u64::from(self.entry.sums_columns) * columns * rows.div_ceil(LINE_BLOCK)]
    }

    /// Rows: what its first dimension counts.
    pub fn row_count(&self) -> u64 {
        self.numel / self.row_len
    }
}

/// Matrices of one shape, which are orthogonalized side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matrices {
    /// m × n, m ≤ n.
    pub shape: Shape,
    /// Newton–Schulz iterations.
    pub steps: u32,
}

/// Tensors whose recipes need the same kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Kind of base.
    pub base: BaseKind,
    /// Kind of policy.
    pub policy: PolicyKind,
    /// How its states per coordinate are stored.
    pub state: StateFormat,
    /// The matrices of a matrix base.
    pub matrices: Option<Matrices>,
    /// Its tensors.
    pub tensors: Range<usize>,
    /// Its pages.
    pub pages: Range<usize>,
}

/// A stretch of the arenas, for the tensors of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its class.
    pub class: usize,
    /// Coordinates, padding included.
    pub len: u64,
    /// Rows or columns that have a state of their own, padding included.
    pub lines: u64,
}

/// A range of an arena block that fits into one binding.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Its class.
    pub class: usize,
    /// Its arena block.
    pub block: usize,
    /// First coordinate's place in the block.
    pub offset: u64,
    /// Coordinates, padding included.
    pub len: u64,
    /// Coordinates without padding.
    pub numel: u64,
    /// Its chunks.
    pub chunks: Range<u32>,
    /// The pieces of its sampled tensors, each as often as workgroups share it.
    pub pieces: Range<u32>,
    /// One chunk per tensor, for matrices and for tensors with a rate.
    pub wholes: Range<u32>,
    /// Tensors that have a chunk here.
    pub tensors: Range<usize>,
    /// Its bits: scratch block, offset in bytes, size in bytes (0 for none).
    pub scratch: (usize, u64, u64),
}

/// Everything that is decided before a device is touched.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Who holds parameters and gradients.
    pub ownership: Ownership,
    /// Tensors, class after class.
    pub tensors: Vec<Tensor>,
    /// Index into `tensors` of each spec, in the caller's order.
    pub order: Vec<usize>,
    /// Classes.
    pub classes: Vec<Class>,
    /// Pages.
    pub pages: Vec<Page>,
    /// Chunks, then pieces, then tensors as a whole.
    pub chunks: Vec<Chunk>,
    /// Arena blocks: a buffer each for parameters, gradients and every state.
    pub blocks: Vec<Block>,
    /// Bytes of each scratch block.
    pub scratch_blocks: Vec<u64>,
    /// Words for histograms, candidates and sums of squares.
    pub counters: u64,
    /// Words for sampled keys.
    pub samples: u64,
    /// Bytes in which Newton–Schulz works, from one shape to the next: X, its successor (and X Xᵀ), the polynomial, and for
    /// wide shapes two more of its size.
    pub workspaces: [u64; 5],
    /// Format of parameters and gradients, as the caller sees them.
    pub precision: Precision,
    /// Factors of learning rates of all components, padded; 0 if no tensor has any.
    pub rates: u64,
    /// Whether gradients of several micro-batches are added up.
    pub accumulates: bool,
    /// Whether steps are observed.
    pub observes: bool,
    /// Whether masters keep only what bf16 parameters lack.
    pub splits: bool,
    /// How bf16 parameters without masters are written.
    pub rounding: Option<Rounding>,
    /// How parameters are averaged over the steps, if they are.
    pub average: Option<Average>,
    /// What its kernels do with gradients.
    pub gradients: Gradients,
    /// Where the chunks' sums of squares begin among the counters, of gradients that are guarded; `None` if they are not.
    pub norms: Option<u32>,
    /// Where those begin that rates follow from: of directions and of gradients for matrix bases, of gradients for AdaGrad-Norm, of updates
    /// and of parameters for Adafactor.
    pub(crate) tensor_norms: [u32; 2],
    pub(super) names: HashMap<String, usize>,
}

impl Plan {
    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        Ok(&self.tensors[self.tensor_index(name)?])
    }

    /// Index into `tensors` of the tensor of this name.
    pub(crate) fn tensor_index(&self, name: &str) -> Result<usize> {
        let spec = self.names.get(name).ok_or_else(|| Error::UnknownTensor(name.to_owned()))?;
        Ok(self.order[*spec])
    }

    /// Multiplications and additions of Newton–Schulz in a step, its products counted in full: 4 m² n + 2 m³ an iteration.
    pub fn flops(&self) -> f64 {
        let of = |class: &Class| {
            let Some(Matrices { shape, steps }) = class.matrices else { return 0.0 };
            let (m, n) = (shape.m as f64, shape.n as f64);
            class.tensors.len() as f64 * f64::from(steps) * (4.0 * m * m * n + 2.0 * m * m * m)
        };
        self.classes.iter().map(of).sum()
    }

    /// The kind of base that steps a tensor.
    pub fn base_of(&self, tensor: &Tensor) -> BaseKind {
        self.classes[self.blocks[tensor.block].class].base
    }

    /// How the states per coordinate of a tensor are stored.
    pub(crate) fn state_of(&self, tensor: &Tensor) -> StateFormat {
        self.classes[self.blocks[tensor.block].class].state
    }

    /// Coordinates of a tensor with its padding.
    pub(crate) fn padded(&self, tensor: &Tensor) -> u64 {
        tensor.numel.next_multiple_of(alignment(self.state_of(tensor)))
    }

    /// The kind of policy that a tensor is stepped under.
    pub(crate) fn policy_of(&self, tensor: &Tensor) -> PolicyKind {
        self.classes[self.blocks[tensor.block].class].policy
    }

    /// Whether parameters have masters in f32, in buffers of their own.
    pub(crate) fn has_masters(&self) -> bool {
        self.precision != Precision::F32 && self.rounding.is_none() && !self.splits
    }

    /// Bytes per coordinate of the parameters that steps change: masters, where there are any, in one part or two.
    pub(crate) fn stepped_bytes(&self) -> u64 {
        if self.rounding.is_some() { self.precision.bytes() } else { 4 }
    }

    /// Whether some parameters have averages for evaluation.
    pub(crate) fn averages(&self) -> bool {
        self.average.is_some() || self.is_schedule_free()
    }

    /// How averages over the steps are stored.
    pub(crate) fn average_format(&self) -> Precision {
        self.average.map_or(Precision::F32, |average| average.precision)
    }

    /// Whether some bases have averages of their own.
    pub(crate) fn is_schedule_free(&self) -> bool {
        self.classes.iter().any(|class| class.base.row().averages)
    }

    /// Chunks of all tensors.
    pub(crate) fn chunk_count(&self) -> u32 {
        self.tensors[self.tensors.len() - 1].chunks.end
    }

    /// Bytes of what is observed.
    pub(crate) fn observations(&self) -> u64 {
        4 * (OF_CHUNK * u64::from(self.chunk_count()) + OF_TENSOR * self.tensors.len() as u64)
    }

    /// Coordinates of all tensors.
    pub fn numel(&self) -> u64 {
        self.tensors.iter().map(|t| t.numel).sum()
    }

    /// Bytes of the buffers that the optimizer keeps, parameters and gradients included where it owns them, tables left
    /// out.
    pub fn memory(&self) -> u64 {
        let copies = [self.has_masters(), self.accumulates, self.observes];
        let words = copies.map(u64::from).iter().sum::<u64>();
        let owned = if self.ownership == Ownership::Arenas { 2 * self.precision.bytes() } else { 0 };
        let bytes = |block: &Block| {
            let Class { base, state, .. } = self.classes[block.class];
            let [states, lines] = match self.ownership {
                Ownership::Stateless => [0, 0],
                _ => [base.state_bytes(state), base.line_states() * block.lines],
            };
            let low = if self.splits { 2 } else { 0 };
            let average = self.average.map_or(0, |average| average.precision.bytes());
            4 * lines + block.len * (owned + 4 * words + low + average + states)
        };
        let observations = if self.observes { self.observations() } else { 0 };
        self.blocks.iter().map(bytes).sum::<u64>() + observations + self.scratch_memory()
    }

    /// Bytes of the buffers that the kernels of a step hand to each other: `memory` without parameters, gradients
    /// and state.
    pub fn scratch_memory(&self) -> u64 {
        let bits = self.scratch_blocks.iter().sum::<u64>();
        bits + self.workspaces.iter().sum::<u64>() + 4 * (self.counters + self.samples)
    }

    /// Bytes of the largest binding of tensors that are not cut, and of states per row or column.
    pub(crate) fn whole_tensors(&self) -> u64 {
        let whole = self.tensors.iter().filter(|tensor| self.base_of(tensor).keeps_whole(self.splits));
        let bytes = |tensor: &Tensor| {
            self.base_of(tensor).widest_binding(self.state_of(tensor), self.splits) * self.padded(tensor)
        };
        let largest = whole.map(bytes).max().unwrap_or(0);
        self.blocks.iter().map(|block| 4 * block.lines).max().unwrap_or(0).max(largest)
    }

    /// Words of the counters where candidates have as little room as they may.
    pub(crate) fn least_counters(&self) -> u64 {
        let spare = |sampling: &Sampling| {
            let least = sampling.with_capacity(sampling.least_capacity());
            sampling.candidate_words() - least.candidate_words()
        };
        let all = self.tensors.iter();
        self.counters - all.filter_map(|tensor| self.exact_sampling(tensor)).map(|s| spare(&s)).sum::<u64>()
    }

    /// The sampling of a tensor of which candidates are kept.
    pub(super) fn exact_sampling(&self, tensor: &Tensor) -> Option<Sampling> {
        tensor.sampling.filter(|_| self.policy_of(tensor).selects() == Selects::Exact)
    }
}

pub(crate) fn within(limit: &str, needed: u64, available: u64) -> Result<()> {
    ensure!(needed <= available, Error::Unsupported(vec![Missing { limit: limit.to_owned(), needed, available }]));
    Ok(())
}

/// Largest matrix of a matrix base in bytes, as it is orthogonalized: what must fit into a buffer and a binding.
pub(crate) fn largest_matrix(specs: &[TensorSpec], groups: &ParamGroups) -> u64 {
    let slot = |spec: &TensorSpec| {
        groups.recipe_of(spec).base.newton_schulz()?;
        Some(16 * spec.matrix()?.shape().slot())
    };
    specs.iter().filter_map(slot).max().unwrap_or(0)
}

/// Largest tensor in bytes, with its padding: what `max_buffer_size` must at least be.
pub(crate) fn largest_tensor(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|s| 4 * s.numel().next_multiple_of(ALIGNMENT)).max().unwrap_or(0)
}

/// The coordinates that the places of tensors and pages are multiples of, so that bindings begin at a multiple of 256 bytes.
pub(crate) fn alignment(state: StateFormat) -> u64 {
    ALIGNMENT.max(256 / state.bytes())
}

/// Appends `size` to the last block, or opens a new one; returns the block and the offset in it.
pub(super) fn allocate(blocks: &mut Vec<u64>, size: u64, limit: u64) -> (usize, u64) {
    if blocks.last().is_none_or(|used| used + size > limit) {
        blocks.push(0);
    }
    let block = blocks.len() - 1;
    blocks[block] += size;
    (block, blocks[block] - size)
}
