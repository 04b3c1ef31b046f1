//! What one recorded step runs: its stages, once it is known where the tensors lie.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use super::batches::{self, Batch, Layout, Place, Placement};
use super::layout::{Ownership, Plan};
use super::program::When;
use super::stage::{Over, Pair, Source, Stage, Stages};
use super::storage::Storage;
use crate::kernel::tables::{Chunk, Grid};

/// What one recorded step runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    /// Grids and chunks that the plan's own tables do not have.
    pub grids: Vec<Grid>,
    pub chunks: Vec<Chunk>,
    pub groups: Vec<Group>,
    pub dispatches: Vec<Bound>,
}

/// A bind group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Group(pub Vec<Entry>);

/// A range of a buffer at a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub binding: u32,
    /// The index of a buffer of the optimizer or, from their number on, of the caller's.
    pub buffer: usize,
    pub offset: u64,
    pub size: u64,
}

/// A dispatch with what it binds.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    pub stage: usize,
    pub kernel: usize,
    /// Index into the grids of the plan, or of the step.
    pub grid: usize,
    /// Whether grid and chunks are those of the plan.
    pub is_planned: bool,
    /// The scalars that its chunks count from.
    pub scalars: u32,
    /// Indices of the bind groups 1, 2 and 3.
    pub groups: [Option<usize>; 3],
    pub workgroups: [u32; 3],
}

/// Where the tensors of a step lie.
pub(crate) struct Placements<'a> {
    /// For each pair of forms.
    pub of: &'a dyn Fn(Pair) -> Vec<Placement>,
    /// A binding of states of a tensor that the caller holds: tensor and index.
    pub state: &'a dyn Fn(usize, usize) -> Place,
}

/// What runs in the stages that `runs` names. A dispatch has at most `limit` workgroups in a dimension, a binding at most so many bytes.
pub(crate) fn work(
    (plan, storage, stages): (&Plan, &Storage, &Stages),
    placements: &Placements<'_>,
    runs: &dyn Fn(When) -> bool,
    (limit, binding): (u32, u64),
) -> Work {
    let mut work = Work::default();
    let mut layouts: [Option<Layout>; 3] = Default::default();
    let (mut grids, mut groups) = (HashMap::new(), HashMap::new());
    for (index, stage) in stages.all.iter().enumerate().filter(|(_, stage)| runs(stage.when)) {
        let lay_out = || batches::lay_out(plan, &(placements.of)(stage.pair), binding, &mut work.chunks);
        let layout = layouts[stage.pair as usize].get_or_insert_with(lay_out);
        for batch in batches_of(stage, layout) {
            let kernel = stage.kernels[usize::from(batch.is_some_and(|batch| !batch.vectorized))];
            let (mut grid, mut workgroups) = (index, stage.workgroups);
            let range = batch.and_then(|batch| batch.range.clone());
            if let Some(Range { start: first, end }) = range {
                let [first, count] = [first, end - first].map(|chunks| stage.per_chunk * chunks);
                grid = number(Grid { first, count, ..stage.grid }, &mut work.grids, &mut grids);
                workgroups = stage.over.workgroups(count, limit);
            }
            let bound = stage.groups.each_ref().map(|group| {
                let bind = |&(binding, source): &(u32, Source)| {
                    let (buffer, offset, size) = resolve((plan, storage), placements, stage, batch, source);
                    Entry { binding, buffer, offset, size }
                };
                let entries = Group(group.iter().map(bind).collect());
                (!group.is_empty()).then(|| number(entries, &mut work.groups, &mut groups))
            });
            let (is_planned, scalars) = (range.is_none(), batch.map_or(0, |batch| batch.rows.start));
            work.dispatches.push(Bound { stage: index, kernel, grid, is_planned, scalars, groups: bound, workgroups });
        }
    }
    work
}

/// The batches that a stage has a dispatch for; one without a batch where it works on the same in each step.
fn batches_of<'a>(stage: &Stage, layout: &'a Layout) -> Vec<Option<&'a Batch>> {
    let is_own = |(_, source): &(u32, Source)| matches!(source, Source::Own { .. });
    let all = match stage.over {
        // What lies in workspaces lies as in the plan.
        Over::Chunks if !stage.groups[0].is_empty() && stage.groups[0].iter().all(is_own) => return vec![None],
        Over::Chunks => &layout.chunks,
        Over::Pieces | Over::PieceParts(_) => &layout.pieces,
        Over::Wholes(_) if stage.groups[0].iter().all(is_own) => &layout.matrices,
        Over::Wholes(_) => &layout.wholes,
        Over::Tensors(_) | Over::Lanes | Over::Once => return vec![None],
    };
    let from = all.partition_point(|batch| Some(batch.page) < stage.page);
    all[from..].iter().take_while(|batch| Some(batch.page) == stage.page).map(Some).collect()
}

/// Finds or adds an item.
fn number<T: Clone + Eq + Hash>(item: T, all: &mut Vec<T>, known: &mut HashMap<T, usize>) -> usize {
    *known.entry(item).or_insert_with_key(|item| {
        all.push(item.clone());
        all.len() - 1
    })
}

/// The range of a buffer that a source is in a batch.
fn resolve(
    (plan, storage): (&Plan, &Storage),
    placements: &Placements<'_>,
    stage: &Stage,
    batch: Option<&Batch>,
    source: Source,
) -> (usize, u64, u64) {
    let batch = || batch.expect("only stages over chunks bind tensors");
    let whole = |place: Place| (place.buffer, place.offset, place.size);
    match source {
        Source::First => whole(batch().param),
        Source::Second => whole(batch().grad),
        Source::Own { buffer, offset, size } => (buffer, offset, size),
        Source::State(state) => {
            let page = &plan.pages[stage.page.expect("state lies in a page")];
            let class = &plan.classes[page.class];
            let binding = &class.base.state_bindings(plan.splits)[state];
            if plan.ownership == Ownership::Stateless {
                // Without state of its own a page has one tensor.
                let tensor = page.tensors.start;
                let place = (placements.state)(tensor, state);
                if binding.states.len() > 1 || binding.per.is_line() {
                    return whole(place);
                }
                let first = page.offset - plan.tensors[tensor].offset;
                let [first, size] = [first, page.numel.next_multiple_of(4)].map(|count| class.state.bytes() * count);
                return (place.buffer, place.offset + first, size);
            }
            let buffer = storage.blocks[page.block].states[state];
            // States of rows and columns are bound whole.
            match binding.per.is_line() {
                true => (buffer, 0, storage.buffers[buffer].size),
                false => {
                    let [offset, size] = [page.offset, page.len].map(|count| binding.bytes(class.state) * count);
                    (buffer, offset, size)
                }
            }
        }
    }
}
