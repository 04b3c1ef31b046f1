//! What holds of every layout and its schedule; for `tests/cpu/plan.rs` and for `fuzz/`, which build the most different ones.

use wgpu_optim::Program;
use wgpu_optim::kernel::tables::Chunk;
use wgpu_optim::matrix::Matmul;
use wgpu_optim::plan::layout::{CHUNK, Plan, PlanLimits};

/// Panics unless every coordinate is in exactly one chunk, everything is within the limits and every dispatch covers its grid.
pub fn assert_sound(plan: &Plan, limits: PlanLimits, workgroups: u32) {
    let program = Program::of(plan, limits.binding, workgroups, Matmul::Tiles);
    let mut covered = vec![0; plan.tensors.len()];
    let mut next_chunk = 0;
    for page in &plan.pages {
        let states = plan.classes[page.class].base.state_bindings(plan.splits);
        let widest = states.iter().map(|binding| binding.states.len() as u64).max().unwrap_or(1);
        assert!(4 * widest * page.len <= limits.binding && page.scratch.2 <= limits.binding);
        assert!(
            4 * widest * plan.blocks[page.block].len <= limits.buffer,
            "a block of states is a buffer of the device"
        );
        assert!(page.offset.is_multiple_of(64), "a page can be bound");
        assert!(page.offset + page.len <= plan.blocks[page.block].len, "a page lies in its block");
        assert_eq!(page.chunks.start, next_chunk, "pages follow each other");
        next_chunk = page.chunks.end;
        for chunk in &plan.chunks[page.chunks.start as usize..page.chunks.end as usize] {
            let tensor = &plan.tensors[chunk.tensor as usize];
            assert!(page.tensors.contains(&(chunk.tensor as usize)));
            assert!(widest == 1 || tensor.pages.len() == 1, "tensors whose states share a binding are not cut");
            assert_eq!(u64::from(chunk.index), covered[chunk.tensor as usize], "chunks follow each other");
            assert_eq!(page.offset + u64::from(chunk.offset), tensor.offset + u64::from(chunk.index));
            assert!(u64::from(chunk.offset + chunk.len) <= page.len);
            assert!(chunk.offset.is_multiple_of(4) && chunk.len > 0 && u64::from(chunk.len) <= CHUNK);
            covered[chunk.tensor as usize] += u64::from(chunk.len);
        }
        let pieces = &plan.chunks[page.pieces.start as usize..page.pieces.end as usize];
        let chunks = &plan.chunks[page.chunks.start as usize..page.chunks.end as usize];
        let sampled = |tensor: u32| plan.tensors[tensor as usize].sampling.is_some();
        let sum = |all: &mut dyn Iterator<Item = &Chunk>| all.map(|c| u64::from(c.len)).sum::<u64>();
        assert_eq!(
            sum(&mut pieces.iter().filter(|p| p.part == 0)),
            sum(&mut chunks.iter().filter(|c| sampled(c.tensor))),
            "pieces cover the sampled tensors of the page"
        );
        assert!(pieces.iter().all(|p| p.part < p.parts));
    }
    for (tensor, covered) in plan.tensors.iter().zip(covered) {
        assert_eq!(covered, tensor.numel, "{}", tensor.spec.name);
    }
    for block in &plan.blocks {
        assert!(4 * block.len <= limits.buffer, "a block is a buffer of the device");
    }
    let mut places: Vec<_> = plan.tensors.iter().map(|t| (t.block, t.offset, t.offset + t.numel)).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|w| w[0].0 != w[1].0 || w[0].2 <= w[1].1), "tensors do not overlap");
    for &(block, _, end) in &places {
        assert!(end <= plan.blocks[block].len, "a tensor lies in its block");
    }
    for dispatch in &program.dispatches {
        let [x, y, _] = dispatch.workgroups;
        assert!(x >= 1 && y >= 1 && x <= workgroups && y <= workgroups);
        let lanes = if dispatch.entry_point == "prepare" { 256 } else { 1 };
        assert!(u64::from(x) * u64::from(y) * lanes >= u64::from(dispatch.count), "enough workgroups");
        for bound in &dispatch.bindings {
            let size = program.buffers[bound.buffer].size;
            assert!(bound.offset + bound.size <= size, "{bound:?} of {size}");
        }
    }
}
