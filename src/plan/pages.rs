//! Lays out tensors, the one way to a [`Plan`]: side by side in blocks, cut into pages and chunks, and into the pieces and whole
//! tensors that some kernels take.

use super::counters;
use super::layout::{
    ALIGNMENT, Block, Class, Matrices, Ownership, PAGE, Page, Plan, PlanLimits, ROWS, Tensor, alignment, allocate,
    largest_tensor, within,
};
use crate::error::{Error, Result, ensure};
use crate::kernel::tables::{self, Chunk};
use crate::recipe::Recipe;
use crate::recipe::base::BaseKind;
use crate::recipe::groups::ParamGroups;
use crate::recipe::matrix::Matrix;
use crate::recipe::policy::{PolicyKind, Selects};
use crate::recipe::precision::Precision;
use crate::recipe::sampling::Sampling;
use crate::recipe::spec::{CHUNK, TensorSpec};

/// Tensors of a page that kernels take whole, at most: a dimension of a dispatch.
const WHOLES: u64 = 65_535;

impl Plan {
    /// Lays out `specs`.
    ///
    /// # Errors
    /// A recipe out of range, no tensors or groups, an empty or repeated name, a size of 0, an unknown group, or a
    /// tensor or table too large for the limits.
    pub fn new(specs: &[TensorSpec], groups: &ParamGroups, ownership: Ownership, limits: PlanLimits) -> Result<Self> {
        let names = groups.validate_specs(specs)?;
        let has_state = ownership != Ownership::Stateless;
        let keeps = groups.gradients().skips || groups.accumulation() > 1 || groups.precision() != Precision::F32;
        let keeps = keeps || groups.average().is_some();
        let none = "an optimizer without state cannot skip steps, add up micro-batches, keep averages, or keep f16 or bf16 masters";
        ensure!(has_state || !keeps, Error::Ownership(none));
        let mut plan = Self {
            ownership,
            order: vec![0; specs.len()],
            precision: groups.precision(),
            accumulates: groups.accumulation() > 1,
            observes: groups.telemetry.is_some(),
            average: groups.average(),
            rounding: groups.rounding(),
            splits: groups.splits_masters(),
            gradients: groups.gradients(),
            names,
            ..Self::default()
        };
        place_tensors(&mut plan, specs, groups, limits)?;
        cut_pages(&mut plan, limits);
        cut_pieces(&mut plan);
        place_wholes(&mut plan, limits)?;
        counters::place_rates(&mut plan)?;
        counters::place_counters(&mut plan, limits)?;
        Ok(plan)
    }
}

fn place_tensors(plan: &mut Plan, specs: &[TensorSpec], groups: &ParamGroups, limits: PlanLimits) -> Result<()> {
    let key = |&spec: &usize| {
        let (spec, Recipe { base, policy, state }) = (&specs[spec], groups.recipe_of(&specs[spec]));
        let matrices =
            base.newton_schulz().and_then(|ns| Some(Matrices { shape: spec.matrix()?.shape(), steps: ns.steps }));
        // Rows of a dispatch are a window over the groups, so the window is part of the class.
        (BaseKind::of(&base), PolicyKind::of(&policy, spec.numel()), matrices, state, groups.row_of(spec) / ROWS)
    };
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_cached_key(|spec| {
        let (base, policy, matrices, state, window) = key(spec);
        (base.order(), policy.order(), matrices, state, window)
    });
    for members in order.chunk_by(|a, b| key(a) == key(b)) {
        let (base, policy, matrices, state, _) = key(&members[0]);
        let (first, class) = (plan.tensors.len(), plan.classes.len());
        let (mut blocks, mut lines) = (Vec::new(), Vec::new());
        for &i in members {
            let (spec, recipe) = (&specs[i], groups.recipe_of(&specs[i]));
            let numel = spec.numel();
            let (block, offset) = allocate(
                &mut blocks,
                numel.next_multiple_of(alignment(state)),
                limits.buffer / base.widest_binding(state, plan.splits),
            );
            lines.resize(blocks.len(), 0);
            let row_len = numel / spec.shape.first().map_or(1, |&rows| rows as u64);
            let states = base.row().states.iter().filter(|state| state.per.is_line());
            let count = states.map(|state| state.per.shape(spec).iter().product::<usize>() as u64).max().unwrap_or(0);
            // The caller binds the states of each tensor alone.
            let first_line = if plan.ownership == Ownership::Stateless { 0 } else { lines[block] };
            lines[block] += count.next_multiple_of(ALIGNMENT);
            let k = recipe.policy.k(numel);
            let matrix = spec.matrix().filter(|_| recipe.base.newton_schulz().is_some());
            let inputs_first = matrix.is_some_and(|matrix| matrix.inputs_first);
            let summed = base.row().lines.map(|lines| lines.sums);
            let [sums_rows, sums_columns] = summed.map_or([false; 2], |sums| sums.over(inputs_first));
            let rate = matrix.map_or(1.0, |matrix| recipe.base.rate(matrix)) as f32;
            let entry = tables::Tensor {
                k: k as u32,
                numel: numel as u32,
                identity: spec.identity(),
                components: spec.components.max(1) as u32,
                sums_rows: u32::from(sums_rows),
                sums_columns: u32::from(sums_columns),
                tall: u32::from(matrix.is_some_and(Matrix::is_tall)),
                // Lines have factors instead, which begin with this one.
                rate: if summed.is_some() { 1.0 } else { rate },
                scale: rate,
                ..tables::Tensor::default()
            };
            plan.order[i] = plan.tensors.len();
            plan.tensors.push(Tensor {
                spec: spec.clone(),
                numel,
                k,
                row: groups.row_of(spec),
                sampling: policy.samples().then(|| Sampling::new(numel, k)),
                block: plan.blocks.len() + block,
                offset,
                chunks: 0..0,
                pages: 0..0,
                row_len,
                lines: first_line,
                entry,
            });
        }
        plan.blocks.extend(blocks.into_iter().zip(lines).map(|(len, lines)| Block { class, len, lines }));
        plan.classes.push(Class { base, policy, state, matrices, tensors: first..plan.tensors.len(), pages: 0..0 });
    }
    within("max_buffer_size", largest_tensor(specs).max(plan.whole_tensors()), limits.buffer)?;
    // A page has a chunk at least.
    within("max_storage_buffer_binding_size", plan.whole_tensors().max(4 * CHUNK), limits.binding)
}

fn cut_pages(plan: &mut Plan, limits: PlanLimits) {
    let binding = limits.binding.min(PAGE);
    for class in 0..plan.classes.len() {
        let Class { base, policy, state, matrices, ref tensors, .. } = plan.classes[class];
        let (tensors, first_page) = (tensors.clone(), plan.pages.len());
        let (bits_bytes, widest, alignment) =
            (policy.bits_bytes(base), base.widest_binding(state, plan.splits), alignment(state));
        // Matrices are not cut, nor are tensors with a rate, states of rows or columns, or pairs of states. Those too large for a binding
        // are refused later.
        let is_whole = matrices.is_some() || base.keeps_whole(plan.splits);
        let room = matrices.map_or(WHOLES, |m| (binding.min(limits.buffer) / (16 * m.shape.slot())).min(WHOLES));
        let room = if base.takes_wholes() { room } else { u64::MAX };
        for t in tensors {
            let Tensor { block, offset, numel, row_len, lines, .. } = plan.tensors[t];
            let first_chunk = plan.chunks.len() as u32;
            // Tensors in several pages take more dispatches after a miss.
            let is_kept = policy.selects() == Selects::Exact && widest * numel.next_multiple_of(alignment) <= binding;
            for index in (0..numel).step_by(CHUNK as usize) {
                let len = CHUNK.min(numel - index);
                let place = offset + index;
                let end = (place + len).next_multiple_of(alignment);
                let needed = if is_whole || is_kept { (offset + numel).next_multiple_of(alignment) } else { end };
                let is_begun = |page: &Page| page.tensors.end == t + 1;
                let has_room = |page: &Page| {
                    widest * (needed - page.offset) <= binding
                        && (page.chunks.len() as u64 + 1) * bits_bytes <= binding
                        && (is_begun(page) || (page.tensors.len() as u64) < room)
                        && (plan.ownership != Ownership::Stateless || page.tensors.start == t)
                };
                let fits = |page: &Page| page.block == block && ((is_whole && is_begun(page)) || has_room(page));
                if !plan.pages[first_page..].last().is_some_and(fits) {
                    let at = plan.chunks.len() as u32;
                    let page = Page { class, block, offset: place, chunks: at..at, tensors: t..t, ..Page::default() };
                    plan.pages.push(page);
                }
                let p = plan.pages.len() - 1;
                let page = &mut plan.pages[p];
                let offset = (place - page.offset) as u32;
                plan.chunks.push(Chunk {
                    offset,
                    len: len as u32,
                    index: index as u32,
                    tensor: t as u32,
                    mask: (page.chunks.len() as u64 * bits_bytes / 4) as u32,
                    param: offset,
                    grad: offset,
                    parts: 1,
                    row_len: row_len as u32,
                    lines: lines as u32,
                    ..Chunk::default()
                });
                page.len = end - page.offset;
                page.numel += len;
                page.chunks.end += 1;
                page.tensors.end = t + 1;
                if index == 0 {
                    plan.tensors[t].pages.start = p;
                }
            }
            let tensor = &mut plan.tensors[t];
            (tensor.pages.end, tensor.chunks) = (plan.pages.len(), first_chunk..plan.chunks.len() as u32);
            tensor.entry.first_chunk = first_chunk;
        }
        for page in &mut plan.pages[first_page..] {
            let size = page.chunks.len() as u64 * bits_bytes;
            if size > 0 {
                let (block, offset) = allocate(&mut plan.scratch_blocks, size, limits.buffer);
                page.scratch = (block, offset, size);
            }
            // Chunks count their scalars from the first that their page has, as those of a step do.
            let rows = plan.tensors[page.tensors.clone()].iter().map(|tensor| tensor.row);
            let first = rows.min().expect("a page has a tensor");
            for chunk in &mut plan.chunks[page.chunks.start as usize..page.chunks.end as usize] {
                chunk.scalars = (plan.tensors[chunk.tensor as usize].row - first) as u32;
            }
        }
        plan.classes[class].pages = first_page..plan.pages.len();
    }
}

fn cut_pieces(plan: &mut Plan) {
    for page in &mut plan.pages {
        let first = plan.chunks.len() as u32;
        let chunks = plan.chunks[page.chunks.start as usize..page.chunks.end as usize].to_vec();
        for of_tensor in chunks.chunk_by(|a, b| a.tensor == b.tensor) {
            let Some(sampling) = plan.tensors[of_tensor[0].tensor as usize].sampling else { break };
            let (begin, len) = (of_tensor[0].index, of_tensor.iter().map(|chunk| chunk.len).sum::<u32>());
            let parts = sampling.parts(begin.into(), u64::from(begin) + u64::from(len)) as u32;
            plan.chunks.extend((0..parts).map(|part| Chunk { len, part, parts, ..of_tensor[0] }));
        }
        page.pieces = first..plan.chunks.len() as u32;
    }
}

/// A place in the table for each matrix and each tensor with a rate, and room for the largest page of matrices to be orthogonalized.
fn place_wholes(plan: &mut Plan, limits: PlanLimits) -> Result<()> {
    for page in &mut plan.pages {
        let first = plan.chunks.len() as u32;
        let Class { base, matrices, .. } = plan.classes[page.class];
        if base.takes_wholes() {
            for (part, tensor) in (0..).zip(&plan.tensors[page.tensors.clone()]) {
                let first = plan.chunks[tensor.chunks.start as usize];
                plan.chunks.push(Chunk { len: tensor.numel as u32, part, ..first });
            }
        }
        if let Some(Matrices { shape, .. }) = matrices {
            let slots = 16 * page.tensors.len() as u64;
            // Directions come and go as they lie in the page.
            let (own, gram) = ((slots * shape.slot()).max(4 * page.len), slots * shape.gram_slot());
            let wide = if shape.is_wide() { gram } else { 0 };
            for (size, needed) in plan.workspaces.iter_mut().zip([own, own, gram, wide, wide]) {
                *size = needed.max(*size);
            }
        }
        page.wholes = first..plan.chunks.len() as u32;
    }
    let largest = plan.workspaces[0];
    within("max_storage_buffer_binding_size", largest, limits.binding)?;
    within("max_buffer_size", largest, limits.buffer)
}
