// X ← B X for a symmetric B, one block per workgroup.

import package::matrix::tiles::{BLOCK, Factor, VECTORS, multiply};
import package::tables::{Invocation, chunks, grid, linear_block};

@compute @workgroup_size(256)
fn advance(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let size = (vec2<u32>(grid.m, grid.n) + 3u) / 4u;       // vectors
    let blocks = (size + VECTORS - 1u) / VECTORS;
    let b = linear_block(in);
    if b < blocks.x * blocks.y {
        let block = vec2<u32>(b / blocks.y, b % blocks.y);
        let is_across = lane >= 128u;
        let slot = lane % VECTORS;
        let at = min(VECTORS * block + slot, size - 1u);
        let base = matrix.part * select(grid.gram_slot, grid.left_slot, is_across) + select(at.x, at.y, is_across);
        let stride = select(grid.gram_stride, grid.left_stride, is_across);
        let factor = Factor(is_across, !is_across, base, stride, lane % 128u / VECTORS, slot);
        multiply(matrix, lane, BLOCK * block.x, BLOCK * block.y, factor, size.x);
    }
}
