//! The caller's tensors of one step: which of them share a dispatch. Knows no wgpu.
//!
//! Engines keep many tensors in one buffer. Tensors of a page whose parameters lie in one buffer, and whose gradients
//! lie in one, are bound together: one range that spans the parameters, one that spans the gradients. Two writable
//! bindings of a dispatch must not overlap, so a batch ends where its two ranges would.

use std::ops::Range;

use crate::plan::{Chunk, Plan, ROWS};

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

/// Chunks that share a dispatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub page: usize,
    pub vectorized: bool,
    /// The row that its chunks count from.
    pub first_row: u32,
    pub param: Place,
    pub grad: Place,
    /// Its part of the step's table.
    pub chunks: Range<u32>,
    /// Its pieces in that table.
    pub pieces: Range<u32>,
}

/// Matrices that share their dispatches: those of a page whose rows are within one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrices {
    pub page: usize,
    /// The row that they count from.
    pub first_row: u32,
    /// Their part of the step's table.
    pub range: Range<u32>,
}

/// What a step works on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    /// In the order of the pages.
    pub batches: Vec<Batch>,
    pub matrices: Vec<Matrices>,
    /// Chunks and pieces, batch after batch, then matrices.
    pub table: Vec<Chunk>,
}

/// A tensor's chunks in one page.
struct Piece<'a> {
    page: usize,
    of: &'a Placement,
    chunks: Range<u32>,
    param: Place,
    grad: Place,
}

/// Lays out a step over these tensors.
pub(crate) fn lay_out(plan: &Plan, placements: &[Placement], binding: u64) -> Layout {
    let mut pieces: Vec<_> = placements.iter().flat_map(|placement| cut(plan, placement)).collect();
    pieces.sort_by_key(|p| (p.page, p.of.vectorized, p.param.buffer, p.grad.buffer, p.param.offset));
    let mut batches: Vec<Batch> = Vec::new();
    let mut table = Vec::new();
    let mut from = 0;
    while from < pieces.len() {
        let mut batch = open(&pieces[from]);
        let mut rows = pieces[from].of.row..pieces[from].of.row + 1;
        let mut to = from + 1;
        while let Some(piece) = pieces.get(to) {
            let wider = rows.start.min(piece.of.row)..rows.end.max(piece.of.row + 1);
            match joined(&batch, piece, binding) {
                Some((param, grad)) if wider.len() <= ROWS => {
                    batch = Batch { param, grad, ..batch };
                    rows = wider;
                    to += 1;
                }
                _ => break,
            }
        }
        batch.first_row = rows.start;
        write(plan, &mut batch, &pieces[from..to], &mut table);
        batches.push(batch);
        from = to;
    }
    let matrices = lay_out_matrices(plan, placements, &mut table);
    Layout { batches, matrices, table }
}

fn lay_out_matrices(plan: &Plan, placements: &[Placement], table: &mut Vec<Chunk>) -> Vec<Matrices> {
    let of = |placement: &Placement| {
        let page = plan.tensors[placement.tensor].pages.start;
        let known = plan.pages[page].matrices.clone();
        let matrix = known.start as usize + placement.tensor - plan.pages[page].tensors.start;
        (!known.is_empty()).then(|| (page, placement.row, plan.chunks[matrix]))
    };
    let mut present: Vec<_> = placements.iter().filter_map(of).collect();
    present.sort_by_key(|(page, row, matrix)| (*page, *row, matrix.part));
    let mut all: Vec<Matrices> = Vec::new();
    for (page, row, matrix) in present {
        let at = table.len() as u32;
        match all.last() {
            Some(last) if last.page == page && ((row - last.first_row) as usize) < ROWS => {}
            _ => all.push(Matrices { page, first_row: row, range: at..at }),
        }
        let last = all.last_mut().expect("there is one");
        last.range.end = at + 1;
        table.push(Chunk { row: row - last.first_row, ..matrix });
    }
    all
}

fn cut<'a>(plan: &'a Plan, placement: &'a Placement) -> impl Iterator<Item = Piece<'a>> {
    let tensor = &plan.tensors[placement.tensor];
    tensor.pages.clone().map(move |page| {
        let all = &plan.pages[page].chunks;
        let chunks = all.start.max(tensor.chunks.start)..all.end.min(tensor.chunks.end);
        let first = u64::from(plan.chunks[chunks.start as usize].index);
        let last = &plan.chunks[chunks.end as usize - 1];
        let whole = chunks.end == tensor.chunks.end;
        let part = |place: Place| {
            let first = place.unit * first;
            let end = if whole { place.size } else { place.unit * u64::from(last.index + last.len) };
            Place { offset: place.offset + first, size: end - first, ..place }
        };
        Piece { page, of: placement, chunks, param: part(placement.param), grad: part(placement.grad) }
    })
}

fn open(piece: &Piece<'_>) -> Batch {
    Batch {
        page: piece.page,
        vectorized: piece.of.vectorized,
        first_row: piece.of.row,
        param: piece.param,
        grad: piece.grad,
        chunks: 0..0,
        pieces: 0..0,
    }
}

/// The ranges of a batch with another piece, if it may have it.
fn joined(batch: &Batch, piece: &Piece<'_>, binding: u64) -> Option<(Place, Place)> {
    let alike = batch.page == piece.page
        && batch.vectorized == piece.of.vectorized
        && batch.param.buffer == piece.param.buffer
        && batch.grad.buffer == piece.grad.buffer;
    let hull = |a: Place, b: Place| {
        let offset = a.offset.min(b.offset);
        Place { offset, size: (a.offset + a.size).max(b.offset + b.size) - offset, ..a }
    };
    let (param, grad) = (hull(batch.param, piece.param), hull(batch.grad, piece.grad));
    let apart = param.buffer != grad.buffer
        || param.offset + param.size <= grad.offset
        || grad.offset + grad.size <= param.offset;
    (alike && apart && param.size <= binding && grad.size <= binding).then_some((param, grad))
}

fn write(plan: &Plan, batch: &mut Batch, pieces: &[Piece<'_>], table: &mut Vec<Chunk>) {
    let placed = |piece: &Piece<'_>, chunk: &Chunk| {
        let index = u64::from(chunk.index);
        let at = |place: Place, range: Place| {
            ((place.offset + place.unit * index - range.offset) / place.unit) as u32
        };
        Chunk {
            param: at(piece.of.param, batch.param),
            grad: at(piece.of.grad, batch.grad),
            row: piece.of.row - batch.first_row,
            ..*chunk
        }
    };
    let first = table.len() as u32;
    for piece in pieces {
        let chunks = &plan.chunks[piece.chunks.start as usize..piece.chunks.end as usize];
        table.extend(chunks.iter().map(|chunk| placed(piece, chunk)));
    }
    let middle = table.len() as u32;
    let shared = &plan.pages[batch.page].pieces;
    let shared = &plan.chunks[shared.start as usize..shared.end as usize];
    for piece in pieces {
        let tensor = piece.of.tensor as u32;
        let from = shared.partition_point(|part| part.tensor < tensor);
        let own = shared[from..].iter().take_while(|part| part.tensor == tensor);
        table.extend(own.map(|part| placed(piece, part)));
    }
    (batch.chunks, batch.pieces) = (first..middle, middle..table.len() as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Ownership, PlanLimits, TensorSpec};
    use crate::recipe::Recipe;
    use proptest::prelude::*;

    const LIMITS: PlanLimits = PlanLimits { binding: 2 << 20, buffer: 1 << 24 };

    fn plan(sizes: &[usize]) -> Plan {
        let specs: Vec<_> =
            sizes.iter().enumerate().map(|(i, &n)| TensorSpec::new(format!("t{i}"), [n])).collect();
        let recipe: Recipe = "mgup-adamw-approximate".parse().unwrap();
        Plan::new(&specs, &recipe.into(), Ownership::Caller, LIMITS).unwrap()
    }

    /// Tensors one behind the other in buffers, as an engine's allocator would place them.
    fn place(plan: &Plan, buffers: &[(usize, usize)], rows: &[u32]) -> Vec<Placement> {
        let mut used = [0u64; 8];
        let mut take = |buffer: usize, size: u64| {
            let offset = used[buffer];
            used[buffer] = (offset + size).next_multiple_of(256);
            Place { buffer, offset, size, unit: 4 }
        };
        let of = |(tensor, t): (usize, &crate::plan::Tensor)| Placement {
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
        let Layout { batches, table, .. } = lay_out(&plan, &placements, LIMITS.binding);
        assert_eq!(batches.len(), 2, "one number of coordinates is a multiple of four, others are not");
        assert_eq!(batches.iter().map(|b| b.chunks.len()).sum::<usize>(), 11);
        assert!(batches.iter().map(|b| b.pieces.len()).sum::<usize>() >= 5);
        assert_eq!(table.len(), batches[1].pieces.end as usize);
        // In one buffer, parameters and gradients alternate: no two tensors can be bound together.
        let placements = place(&plan, &[(0, 0); 5], &[0; 5]);
        assert_eq!(lay_out(&plan, &placements, LIMITS.binding).batches.len(), 5);
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
            let Layout { batches, table, .. } = lay_out(&plan, &placements, LIMITS.binding);
            prop_assert!(batches.windows(2).all(|b| b[0].page <= b[1].page));
            let mut chunks = vec![0; plan.tensors.len()];
            let mut pieces = vec![0; plan.tensors.len()];
            for batch in &batches {
                let (p, g) = (batch.param, batch.grad);
                prop_assert!(p.size <= LIMITS.binding && g.size <= LIMITS.binding);
                prop_assert!(p.offset.is_multiple_of(256) && g.offset.is_multiple_of(256));
                prop_assert!(p.buffer != g.buffer || p.offset + p.size <= g.offset || g.offset + g.size <= p.offset);
                for (range, covered) in [(&batch.chunks, &mut chunks), (&batch.pieces, &mut pieces)] {
                    for chunk in &table[range.start as usize..range.end as usize] {
                        let t = chunk.tensor as usize;
                        let of = placements.iter().find(|p| p.tensor == t).unwrap();
                        prop_assert_eq!(batch.first_row + chunk.row, of.row);
                        prop_assert!(chunk.row < ROWS as u32);
                        prop_assert_eq!(batch.vectorized, of.vectorized);
                        let index = 4 * u64::from(chunk.index);
                        prop_assert_eq!(p.offset + 4 * u64::from(chunk.param), of.param.offset + index);
                        prop_assert_eq!(g.offset + 4 * u64::from(chunk.grad), of.grad.offset + index);
                        prop_assert!(4 * u64::from(chunk.param + chunk.len) <= p.size);
                        prop_assert!(4 * u64::from(chunk.grad + chunk.len) <= g.size);
                        let page = &plan.pages[batch.page];
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
