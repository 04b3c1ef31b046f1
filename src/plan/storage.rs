//! The buffers of an optimizer: what they hold, how large they are, and what they begin with.

use crate::kernel::tables::{HEADER_BYTES, TENSOR_BYTES};
use crate::plan::layout::{Class, Ownership, Plan, RATES};
use crate::plan::program::{Buffer, Usage};

/// Every buffer, and which of them holds what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Storage {
    pub buffers: Vec<Buffer>,
    pub blocks: Vec<BlockBuffers>,
    pub scratch: Vec<usize>,
    /// Where matrices are orthogonalized.
    pub workspaces: [usize; 5],
    pub tensors: usize,
    pub chunks: usize,
    pub grids: usize,
    pub rates: usize,
    pub counters: usize,
    pub samples: usize,
    /// What is observed of a step.
    pub observations: usize,
}

/// The buffers of a block. Those that there are not have the index [`NONE`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BlockBuffers {
    pub param: usize,
    pub grad: usize,
    /// One for each binding of states.
    pub states: Vec<usize>,
    /// Parameters in f32, where they are stored in fewer bits.
    pub master: usize,
    /// The lower halves of masters, where parameters are their upper halves.
    pub low: usize,
    /// Sums of gradients, where a step has several micro-batches.
    pub sum: usize,
    /// A copy of the parameters, where steps are observed.
    pub snapshot: usize,
    /// Averages of the parameters over the steps, where there are any.
    pub average: usize,
}

/// No buffer.
pub(crate) const NONE: usize = usize::MAX;

impl Storage {
    /// The buffers of a plan. The tables have no contents yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut buffers = Vec::new();
        let mut add = |label: &str, size: u64, usage: Usage| {
            let label = format!("wgpu-optim.{label}");
            buffers.push(Buffer { label, size: size.max(4), usage, contents: Vec::new() });
            buffers.len() - 1
        };
        let storage = Usage::Storage;
        let owns = plan.ownership == Ownership::Arenas;
        let blocks = plan.blocks.iter().map(|block| {
            let (stored, words) = (plan.precision.bytes() * block.len, 4 * block.len);
            let mut some = |is: bool, label: &str, size| if is { add(label, size, storage) } else { NONE };
            let [param, grad] = ["arena.param", "arena.grad"].map(|label| some(owns, label, stored));
            let master = some(plan.has_masters(), "master", words);
            let low = some(plan.splits, "master_low", words / 2);
            let sum = some(plan.accumulates, "sum", words);
            let snapshot = some(plan.observes, "snapshot", words);
            let average = some(plan.average.is_some(), "average", plan.average_format().bytes() * block.len);
            let Class { base, state, .. } = plan.classes[block.class];
            let states = base.state_bindings(plan.splits).iter().map(|binding| {
                let size = if binding.per.is_line() { 4 * block.lines } else { binding.bytes(state) * block.len };
                some(plan.ownership != Ownership::Stateless, &format!("state.{}", binding.name), size)
            });
            let states = states.collect();
            BlockBuffers { param, grad, states, master, low, sum, snapshot, average }
        });
        let blocks = blocks.collect();
        let scratch = plan.scratch_blocks.iter().map(|&size| add("scratch", size, storage)).collect();
        let mut workspace = |i: usize| add(&format!("workspace{}", i + 1), plan.workspaces[i].max(16), storage);
        let workspaces = std::array::from_fn(&mut workspace);
        let tensors = HEADER_BYTES + TENSOR_BYTES * plan.tensors.len() as u64;
        // Declared by every kernel that steps, and read only where components have rates.
        let rates = add("rates", 4 * RATES, Usage::StorageAndUniform);
        Self {
            tensors: add("table.tensors", tensors, Usage::StorageAndUniform),
            chunks: add("table.chunks", size_of_val(&plan.chunks[..]) as u64, storage),
            grids: add("table.grids", 0, Usage::Uniform),
            counters: add("counters", 4 * plan.counters, storage),
            samples: add("samples", 4 * plan.samples.max(4), storage),
            observations: if plan.observes { add("observations", plan.observations(), storage) } else { NONE },
            rates,
            blocks,
            scratch,
            workspaces,
            buffers,
        }
    }

    /// Gives a buffer its contents, and their size.
    pub(crate) fn fill(&mut self, buffer: usize, bytes: &[u8]) {
        self.buffers[buffer].contents = bytemuck::pod_collect_to_vec(bytes);
        self.buffers[buffer].size = (bytes.len() as u64).max(4);
    }
}
