//! The stages of a step, before it is known where the tensors lie: one dispatch for each page, for each class, or for the step.

use std::ops::Range;
use std::sync::Arc;

use crate::kernel::catalog::{Config, Kernel};
use crate::kernel::linker::Binding;
use crate::kernel::tables::Grid;
use crate::plan::layout::{Page, Plan, WORKGROUP};
use crate::plan::program::When;
use crate::plan::storage::Storage;
use crate::recipe::launch::LaunchShape;
use crate::recipe::policy::{PolicyKind, Selects};
use crate::recipe::spec::CHUNK;

/// Vectors of four that one lane of a kernel over chunks takes one after the other, on a CPU.
pub(super) const STREAM: u64 = CHUNK / 4 / 32;
/// Kernels in which a workgroup of a GPU has a quarter of a chunk, one vector of four per invocation.
const QUARTERED: [&str; 8] = [
    "step/stream",
    "step/stream_exact_quarter",
    "step/score_mask",
    "transfer/average",
    "transfer/exchange",
    "transfer/round",
    "transfer/track",
    "transfer/widen",
];

/// Kernels that sum over chunks, on a GPU with four vectors per invocation, or over rows that begin in a chunk.
const WIDE: [&str; 5] = ["guard/norm", "step/update_sums", ROW_MOMENTS, "telemetry/observe", "telemetry/moved"];
/// States its own rounds, which depend on the length of the rows.
pub(super) const ROW_MOMENTS: &str = "step/row_moments";

/// A stage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    pub purpose: &'static str,
    pub when: When,
    /// Indices of its kernels: for tensors that are reached four coordinates at a time, and one at a time.
    pub kernels: [usize; 2],
    pub class: usize,
    /// The page that it works on; `None` for work on all tensors of a class.
    pub page: Option<usize>,
    pub over: Over,
    /// How many workgroups share a chunk, and how many rows of the grid it takes.
    pub per_chunk: u32,
    /// Which two forms of a tensor it binds.
    pub pair: Pair,
    pub grid: Grid,
    /// The bind groups 1, 2 and 3.
    pub groups: [Bindings; 3],
    /// Workgroups in three dimensions.
    pub workgroups: [u32; 3],
    /// Whether it does nothing unless a bracket missed.
    pub after_miss: bool,
    /// Bytes that it reads and writes in storage buffers, tables left out.
    pub bytes: u64,
    pub serial_rounds: u64,
}

/// What a bind group of a stage holds: bindings and sources.
pub(crate) type Bindings = Vec<(u32, Source)>;

/// What a binding of a stage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The first form of the tensors of a batch: parameters, masters or sums.
    First,
    /// The second form: gradients, or parameters in the format of the caller.
    Second,
    /// A binding of states of the tensors.
    State(usize),
    /// A range of a buffer of the optimizer.
    Own { buffer: usize, offset: u64, size: u64 },
}

/// Two forms of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Pair {
    /// What a step changes, and its gradients: masters and sums where there are any.
    Step,
    /// Sums of gradients, and gradients.
    Sums,
    /// Masters, and parameters.
    Masters,
}

impl Pair {
    /// The two forms, of those that the caller has and those that steps work on.
    pub(crate) fn of<T>(self, [param, grad]: [T; 2], [master, sum]: [T; 2]) -> [T; 2] {
        match self {
            Self::Step => [master, sum],
            Self::Sums => [sum, grad],
            Self::Masters => [master, param],
        }
    }
}

/// What a stage has one workgroup for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// A chunk of the page.
    Chunks,
    /// A part of a piece of the page.
    Pieces,
    /// The same, and so many workgroups for each part.
    PieceParts(u32),
    /// A part of a whole tensor of the page: how many parts each has.
    Wholes(u64),
    /// A tensor of the class: how many workgroups each has.
    Tensors(u64),
    /// As many tensors of the class as it has invocations.
    Lanes,
    /// The step.
    Once,
}

impl Over {
    /// The workgroups for so many of them, at most `limit` in a dimension.
    pub(crate) fn workgroups(self, count: u32, limit: u32) -> [u32; 3] {
        match self {
            Self::Chunks | Self::Pieces => workgroups(count, limit),
            Self::PieceParts(each) => {
                let [x, y, _] = workgroups(count, limit);
                [x, y, each]
            }
            Self::Wholes(parts) => {
                let [x, z, _] = workgroups(parts as u32, limit);
                [x, count, z]
            }
            Self::Tensors(each) => workgroups(count * each as u32, limit),
            Self::Lanes => workgroups(count.div_ceil(WORKGROUP as u32), limit),
            Self::Once => [1; 3],
        }
    }
}

/// What a stage covers, for its cost.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Chunks, pieces or tensors.
    pub count: u64,
    /// Coordinates of the page.
    pub numel: u64,
    /// Sampled coordinates.
    pub sampled: u64,
    /// Candidates, as many as are expected.
    pub candidates: u64,
    /// Candidates of a workgroup, as many as there may be.
    pub capacity: u64,
    /// Rounds of a workgroup of 256 lanes that goes over its part of a piece.
    pub piece_rounds: u64,
}

/// The stages of a step and their kernels.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Stages {
    pub all: Vec<Stage>,
    /// Each with the numbers of the bindings of its groups 1, 2 and 3.
    pub kernels: Vec<(Arc<Kernel>, [Vec<u32>; 3])>,
}

/// Adds the stages of one class, or of one page of it.
pub(super) struct Writer<'a> {
    pub plan: &'a Plan,
    pub storage: &'a Storage,
    pub class: usize,
    pub policy: PolicyKind,
    pub pages: Range<usize>,
    pub tensors: Range<usize>,
    /// What is the same for all dispatches of the class.
    pub grid: Grid,
    /// What fills the slots of the class's kernels.
    pub config: Config,
    /// Workspaces in the place of what group 1 binds at 0, 1 and 2.
    pub workspaces: [Option<usize>; 3],
    /// Whether some tensors may be reached one coordinate at a time.
    pub single: bool,
    /// Most workgroups in one dimension.
    pub limit: u32,
    pub when: When,
    pub pair: Pair,
    pub stages: &'a mut Vec<(Stage, [Arc<Kernel>; 2])>,
}

impl Writer<'_> {
    /// Page after page; no tensor is in two of them.
    pub(super) fn by_page(&mut self, add: fn(&mut Writer<'_>)) {
        for page in self.pages.clone() {
            let tensors = self.plan.pages[page].tensors.clone();
            add(&mut Writer { pages: page..page + 1, tensors, stages: self.stages, ..*self });
        }
    }

    /// The same for stages with another grid and with workspaces.
    pub(super) fn with(&mut self, grid: Grid, workspaces: [Option<usize>; 3]) -> Writer<'_> {
        let (pages, tensors) = (self.pages.clone(), self.tensors.clone());
        Writer { pages, tensors, grid, workspaces, stages: self.stages, ..*self }
    }

    /// Adds one dispatch for each page, for all tensors of the class, or for the step. Its cost: bytes that it moves, and rounds of memory
    /// accesses that one lane makes one after the other.
    pub(super) fn add(
        &mut self,
        purpose: &'static str,
        entry: &'static str,
        config: Config,
        over: Over,
        cost: &dyn Fn(Share) -> (u64, u64),
    ) {
        let quarters = config.shape == LaunchShape::Gpu && QUARTERED.contains(&entry);
        let wide = config.shape == LaunchShape::Gpu && WIDE.contains(&entry);
        let config = Config { quarters, wide, shape: LaunchShape::default(), ..config };
        let kernels = [true, !self.single].map(|vectorized| Config { vectorized, ..config }.kernel(entry));
        let per_chunk = if quarters { 4 } else { 1 };
        let pages = match over {
            Over::Chunks | Over::Pieces | Over::PieceParts(_) | Over::Wholes(_) => {
                self.pages.clone().map(Some).collect()
            }
            Over::Tensors(_) | Over::Lanes | Over::Once => vec![None],
        };
        for index in pages {
            let page = index.map(|page| &self.plan.pages[page]);
            let range = match (over, page) {
                (Over::Chunks, Some(page)) => page.chunks.clone(),
                (Over::Pieces | Over::PieceParts(_), Some(page)) => page.pieces.clone(),
                (Over::Wholes(_), Some(page)) => page.wholes.clone(),
                (Over::Once, _) => 0..self.plan.chunk_count(),
                _ => self.tensors.start as u32..self.tensors.end as u32,
            };
            let count = range.len() as u32;
            let mut groups: [Bindings; 3] = Default::default();
            for binding in kernels[0].bindings.iter().filter(|binding| binding.group > 0) {
                groups[binding.group as usize - 1].push((binding.binding, self.source(binding, over, page)));
            }
            let (bytes, rounds) = cost(self.share(count, page));
            let stage = Stage {
                purpose,
                when: self.when,
                kernels: [0; 2],
                class: self.class,
                page: index,
                over,
                per_chunk,
                pair: self.pair,
                grid: Grid { first: per_chunk * range.start, count: per_chunk * count, ..self.grid },
                groups,
                workgroups: over.workgroups(per_chunk * count, self.limit),
                after_miss: false,
                bytes,
                serial_rounds: match (quarters, wide) {
                    (true, _) => rounds.div_ceil(STREAM),
                    (_, true) if entry != ROW_MOMENTS => rounds.div_ceil(STREAM / 4),
                    _ => rounds,
                },
            };
            self.stages.push((stage, kernels.clone()));
        }
    }

    /// What a variable of a kernel stands for.
    fn source(&self, binding: &Binding, over: Over, page: Option<&Page>) -> Source {
        let own = |buffer: usize, offset: u64, size: u64| Source::Own { buffer, offset, size };
        let whole = |buffer: usize| own(buffer, 0, self.storage.buffers[buffer].size);
        let workspace = self.workspaces.get(binding.binding as usize).copied().flatten();
        match (binding.name.as_str(), page, workspace.filter(|_| binding.group == 1)) {
            // Matrices lie in slots, other directions as in their page.
            (_, Some(page), Some(workspace)) => match (self.storage.workspaces[workspace], over) {
                (buffer, Over::Wholes(_)) => whole(buffer),
                (buffer, _) => own(buffer, 0, 4 * page.len),
            },
            ("param", ..) => Source::First,
            ("grad", ..) => Source::Second,
            ("mask" | "notes", Some(&Page { scratch: (block, offset, size), .. }), _) => {
                own(self.storage.scratch[block], offset, size)
            }
            ("snapshot", Some(page), _) => own(self.storage.blocks[page.block].snapshot, 4 * page.offset, 4 * page.len),
            ("param_average", Some(page), _) => {
                let each = self.plan.average_format().bytes();
                own(self.storage.blocks[page.block].average, each * page.offset, each * page.len)
            }
            ("master_low", Some(page), _) => own(self.storage.blocks[page.block].low, 2 * page.offset, 2 * page.len),
            ("samples", ..) => whole(self.storage.samples),
            ("counters", ..) => whole(self.storage.counters),
            ("observations", ..) => whole(self.storage.observations),
            (name, ..) => {
                let state =
                    self.config.base.state_bindings(self.plan.splits).iter().position(|binding| binding.name == name);
                Source::State(state.unwrap_or_else(|| panic!("nothing is bound as `{name}`")))
            }
        }
    }

    fn share(&self, count: u32, page: Option<&Page>) -> Share {
        let mut share = Share { count: count.into(), ..Share::default() };
        let Some(page) = page else { return share };
        share.numel = page.numel;
        for piece in &self.plan.chunks[page.pieces.start as usize..page.pieces.end as usize] {
            let tensor = &self.plan.tensors[piece.tensor as usize];
            let Some(sampling) = tensor.sampling else { continue };
            share.capacity = share.capacity.max(u64::from(sampling.capacity).div_ceil(u64::from(piece.parts)));
            let chunks = u64::from(piece.len).div_ceil(CHUNK).div_ceil(piece.parts.into());
            share.piece_rounds = share.piece_rounds.max(chunks * CHUNK / 4 / WORKGROUP);
            if piece.part == 0 {
                let part = f64::from(piece.len) / tensor.numel as f64;
                share.sampled += (part * sampling.coordinates() as f64) as u64;
                if self.policy.selects() == Selects::Exact {
                    share.candidates += (part * sampling.expected(tensor.numel)) as u64;
                }
            }
        }
        share
    }
}

/// So many workgroups in two dimensions of at most `limit`.
pub(crate) fn workgroups(count: u32, limit: u32) -> [u32; 3] {
    let x = count.min(limit);
    [x, count.div_ceil(x), 1]
}
