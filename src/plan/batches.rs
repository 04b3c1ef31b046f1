//! The caller's tensors of one step: which of them share a dispatch. Knows no wgpu.
//!
//! Engines keep many tensors in one buffer. Tensors of a page whose parameters lie in one buffer, and whose gradients
//! lie in one, are bound together: one range that spans the parameters, one that spans the gradients. Two writable
//! bindings of a dispatch must not overlap, so a batch ends where its two ranges would.

use std::ops::Range;

use super::layout::{self, Plan, ROWS};
use super::stage::Pair;
use super::storage::{NONE, Storage};
use crate::kernel::tables::Chunk;

/// A range of one of the caller's buffers, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which buffer: equal numbers are the same buffer.
    pub buffer: usize,
    pub offset: u64,
    pub size: u64,
    /// Bytes of a coordinate.
    pub unit: u64,
}

/// Where a tensor lies in this step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Index into the plan's tensors.
    pub tensor: usize,
    pub param: Place,
    pub grad: Place,
    /// Whether it is reached four coordinates at a time.
    pub vectorized: bool,
    /// Its row among those of the step.
    pub row: u32,
}

impl Placement {
    /// A tensor whose parameters and gradients the caller has in these places, or the arenas.
    pub(crate) fn new(
        (plan, storage): (&Plan, &Storage),
        tensor: usize,
        pair: Pair,
        given: Option<[Place; 2]>,
        row: u32,
    ) -> Self {
        let layout::Tensor { block, offset, numel, .. } = plan.tensors[tensor];
        let (own, padded) = (&storage.blocks[block], numel.next_multiple_of(4));
        let place = |buffer, unit| Place { buffer, offset: unit * offset, size: unit * padded, unit };
        let arenas = || [own.param, own.grad].map(|buffer| place(buffer, plan.precision.bytes()));
        let [param, grad] = given.unwrap_or_else(arenas);
        let master = if own.master == NONE { param } else { place(own.master, 4) };
        let sum = if own.sum == NONE { grad } else { place(own.sum, 4) };
        let [param, grad] = pair.of([param, grad], [master, sum]);
        let vectorized = [param, grad].iter().all(|place| place.size == place.unit * padded);
        Self { tensor, param, grad, vectorized, row }
    }
}

/// Chunks, pieces or whole tensors of a page that share a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub page: usize,
    /// Its part of the step's table, where the plan's table does not have the same for the page.
    pub range: Option<Range<u32>>,
    /// From the first of its rows of scalars, which its chunks count from, to the last.
    pub rows: Range<u32>,
    pub vectorized: bool,
    pub param: Place,
    pub grad: Place,
    /// Its tensors.
    of: Vec<Placement>,
}

/// What a step works on, in the order of the pages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub chunks: Vec<Batch>,
    pub pieces: Vec<Batch>,
    pub wholes: Vec<Batch>,
    /// The same where only their scalars are bound: matrices lie in workspaces.
    pub matrices: Vec<Batch>,
}

/// Lays out a step over these tensors, and adds to its table what the plan's does not have.
pub(crate) fn lay_out(plan: &Plan, placements: &[Placement], binding: u64, table: &mut Vec<Chunk>) -> Layout {
    let mut batches: Vec<Batch> = placements.iter().flat_map(|placement| cut(plan, placement)).collect();
    let mut matrices = batches.clone();
    let sort = |batches: &mut [Batch], key: &dyn Fn(&Batch) -> [u64; 5]| batches.sort_unstable_by_key(key);
    sort(&mut batches, &|b| {
        let [page, param, grad] = [b.page, b.param.buffer, b.grad.buffer].map(|index| index as u64);
        [page, b.vectorized.into(), param, grad, b.param.offset]
    });
    batches.dedup_by(|next, batch| joins(batch, next, binding));
    matrices.retain(|batch| !plan.pages[batch.page].wholes.is_empty());
    sort(&mut matrices, &|b| [b.page as u64, b.rows.start.into(), b.of[0].tensor as u64, 0, 0]);
    matrices.dedup_by(|next, batch| {
        let joins = next.page == batch.page && next.rows.end - batch.rows.start <= ROWS as u32;
        if joins {
            batch.of.append(&mut next.of);
            // As the plan's table has them.
            batch.of.sort_unstable_by_key(|placement| placement.tensor);
        }
        joins
    });
    let mut write = |batch: &Batch, planned: &Range<u32>, is_bound: bool| {
        let of = |placement: &Placement| {
            let (param, grad, scalars) = (placement.param, placement.grad, placement.row - batch.rows.start);
            let placed = move |chunk: &Chunk| {
                let chunk = Chunk { scalars, ..*chunk };
                if !is_bound {
                    return chunk;
                }
                let index = u64::from(chunk.index);
                let at = |own: Place, all: Place| ((own.offset + own.unit * index - all.offset) / own.unit) as u32;
                Chunk { param: at(param, batch.param), grad: at(grad, batch.grad), ..chunk }
            };
            rows(plan, planned, placement.tensor).iter().map(placed)
        };
        let first = table.len();
        table.extend(batch.of.iter().flat_map(of));
        let is_planned = plan.chunks[planned.start as usize..planned.end as usize] == table[first..];
        if is_planned {
            table.truncate(first);
        }
        let range = (!is_planned).then_some(first as u32..table.len() as u32);
        Batch { range, of: Vec::new(), ..batch.clone() }
    };
    let mut layout = Layout::default();
    for batch in &batches {
        let page = &plan.pages[batch.page];
        layout.chunks.push(write(batch, &page.chunks, true));
        layout.pieces.push(write(batch, &page.pieces, true));
        // Matrices are reached in the caller's buffers only where rows or columns are summed.
        if plan.classes[page.class].base.row().lines.is_some() {
            layout.wholes.push(write(batch, &page.wholes, true));
        }
    }
    layout.matrices = matrices.iter().map(|batch| write(batch, &plan.pages[batch.page].wholes, false)).collect();
    layout
}

/// What a range of the plan's table has of a tensor.
fn rows<'a>(plan: &'a Plan, range: &Range<u32>, tensor: usize) -> &'a [Chunk] {
    let all = &plan.chunks[range.start as usize..range.end as usize];
    let first = all.partition_point(|chunk| (chunk.tensor as usize) < tensor);
    let end = all.partition_point(|chunk| chunk.tensor as usize <= tensor);
    &all[first..end]
}

/// A batch for each page of a tensor.
fn cut<'a>(plan: &'a Plan, placement: &'a Placement) -> impl Iterator<Item = Batch> {
    let pages = plan.tensors[placement.tensor].pages.clone();
    pages.clone().map(move |page| {
        let chunks = rows(plan, &plan.pages[page].chunks, placement.tensor);
        let (first, last) = (u64::from(chunks[0].index), chunks[chunks.len() - 1]);
        let part = |place: Place| {
            let first = place.unit * first;
            let is_last = page + 1 == pages.end;
            let end = if is_last { place.size } else { place.unit * u64::from(last.index + last.len) };
            Place { offset: place.offset + first, size: end - first, ..place }
        };
        let Placement { vectorized, row, .. } = *placement;
        let (param, grad) = (part(placement.param), part(placement.grad));
        Batch { page, range: None, rows: row..row + 1, vectorized, param, grad, of: vec![*placement] }
    })
}

/// Adds the next batch to one, if both may share a dispatch.
fn joins(batch: &mut Batch, next: &mut Batch, binding: u64) -> bool {
    let key = |b: &Batch| (b.page, b.vectorized, b.param.buffer, b.grad.buffer);
    let hull = |a: Place, b: Place| {
        let offset = a.offset.min(b.offset);
        Place { offset, size: (a.offset + a.size).max(b.offset + b.size) - offset, ..a }
    };
    let (param, grad) = (hull(batch.param, next.param), hull(batch.grad, next.grad));
    let rows = batch.rows.start.min(next.rows.start)..batch.rows.end.max(next.rows.end);
    let apart = param.buffer != grad.buffer
        || param.offset + param.size <= grad.offset
        || grad.offset + grad.size <= param.offset;
    let fits = param.size <= binding && grad.size <= binding && rows.len() <= ROWS;
    let joins = key(batch) == key(next) && apart && fits;
    if joins {
        batch.of.append(&mut next.of);
        (batch.param, batch.grad, batch.rows) = (param, grad, rows);
    }
    joins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::layout::{Ownership, PlanLimits};
    use crate::recipe::Recipe;
    use crate::recipe::spec::TensorSpec;
    use proptest::prelude::*;

    const LIMITS: PlanLimits = PlanLimits { binding: 2 << 20, buffer: 1 << 24 };

    fn plan(sizes: &[usize]) -> Plan {
        let specs: Vec<_> = sizes.iter().enumerate().map(|(i, &n)| TensorSpec::new(format!("t{i}"), [n])).collect();
        let recipe: Recipe = "mgup-adamw-approximate".parse().unwrap();
        Plan::new(&specs, &recipe.into(), Ownership::Caller, LIMITS).unwrap()
    }

    /// Tensors one after the other in buffers, as an engine's allocator would place them.
    fn place(plan: &Plan, buffers: &[(usize, usize)], rows: &[u32]) -> Vec<Placement> {
        let mut used = [0u64; 8];
        let mut take = |buffer: usize, size: u64| {
            let offset = used[buffer];
            used[buffer] = (offset + size).next_multiple_of(256);
            Place { buffer, offset, size, unit: 4 }
        };
        let of = |(tensor, t): (usize, &crate::plan::layout::Tensor)| Placement {
            tensor,
            param: take(buffers[tensor].0, t.bytes()),
            grad: take(buffers[tensor].1, t.bytes()),
            vectorized: t.numel.is_multiple_of(4),
            row: rows[tensor],
        };
        plan.tensors.iter().enumerate().map(of).collect()
    }

    #[test]
    fn tensors_of_one_pair_of_buffers_share_a_batch() {
        let plan = plan(&[5000, 4097, 8192, 9000, 5001]);
        let placements = place(&plan, &[(0, 1); 5], &[0; 5]);
        let mut table = Vec::new();
        let Layout { chunks, pieces, .. } = lay_out(&plan, &placements, LIMITS.binding, &mut table);
        assert_eq!(chunks.len(), 2, "one number of coordinates is a multiple of four, others are not");
        let count = |all: &[Batch]| all.iter().map(|batch| batch.range.as_ref().unwrap().len()).sum::<usize>();
        assert_eq!(count(&chunks), 11);
        assert!(count(&pieces) >= 5);
        assert_eq!(table.len(), count(&chunks) + count(&pieces));
        // In one buffer, parameters and gradients alternate: no two tensors can be bound together.
        let placements = place(&plan, &[(0, 0); 5], &[0; 5]);
        assert_eq!(lay_out(&plan, &placements, LIMITS.binding, &mut table).chunks.len(), 5);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_chunk_is_in_one_batch_and_points_at_its_own_coordinates(
            tensors in prop::collection::vec((1usize..600_000, 0usize..3, 0usize..3, 0u32..200, any::<bool>()), 1..20),
        ) {
            let plan = plan(&tensors.iter().map(|t| t.0).collect::<Vec<_>>());
            let buffers: Vec<_> = tensors.iter().map(|t| (t.1, t.2)).collect();
            let rows: Vec<_> = tensors.iter().map(|t| t.3).collect();
            let mut placements = place(&plan, &buffers, &rows);
            let mut present = tensors.iter().map(|t| t.4);
            placements.retain(|_| present.next().unwrap());
            let mut table = Vec::new();
            let layout = lay_out(&plan, &placements, LIMITS.binding, &mut table);
            let mut chunks = vec![0; plan.tensors.len()];
            let mut pieces = vec![0; plan.tensors.len()];
            for (batches, covered) in [(&layout.chunks, &mut chunks), (&layout.pieces, &mut pieces)] {
                prop_assert!(batches.windows(2).all(|b| b[0].page <= b[1].page));
                for batch in batches {
                let (p, g) = (batch.param, batch.grad);
                prop_assert!(p.size <= LIMITS.binding && g.size <= LIMITS.binding);
                prop_assert!(p.offset.is_multiple_of(256) && g.offset.is_multiple_of(256));
                prop_assert!(p.buffer != g.buffer || p.offset + p.size <= g.offset || g.offset + g.size <= p.offset);
                    let page = &plan.pages[batch.page];
                    let planned = if std::ptr::eq(batches, &layout.chunks) { &page.chunks } else { &page.pieces };
                    let (all, range) = match &batch.range {
                        Some(range) => (&table, range),
                        None => (&plan.chunks, planned),
                    };
                    for chunk in &all[range.start as usize..range.end as usize] {
                        let t = chunk.tensor as usize;
                        let of = placements.iter().find(|p| p.tensor == t).unwrap();
                        prop_assert_eq!(batch.rows.start + chunk.scalars, of.row);
                        prop_assert!(chunk.scalars < ROWS as u32);
                        prop_assert_eq!(batch.vectorized, of.vectorized);
                        let index = 4 * u64::from(chunk.index);
                        prop_assert_eq!(p.offset + 4 * u64::from(chunk.param), of.param.offset + index);
                        prop_assert_eq!(g.offset + 4 * u64::from(chunk.grad), of.grad.offset + index);
                        prop_assert!(4 * u64::from(chunk.param + chunk.len) <= p.size);
                        prop_assert!(4 * u64::from(chunk.grad + chunk.len) <= g.size);
                        let place = plan.tensors[t].offset + u64::from(chunk.index);
                        prop_assert_eq!(page.offset + u64::from(chunk.offset), place);
                        if chunk.part == 0 {
                            prop_assert_eq!(u64::from(chunk.index), covered[t], "in order");
                            covered[t] += u64::from(chunk.len);
                        }
                    }
                }
            }
            for (t, tensor) in plan.tensors.iter().enumerate() {
                let expected = if placements.iter().any(|p| p.tensor == t) { tensor.numel } else { 0 };
                prop_assert_eq!(chunks[t], expected);
                prop_assert_eq!(pieces[t], if tensor.sampling.is_some() { expected } else { 0 });
            }
        }
    }
}
