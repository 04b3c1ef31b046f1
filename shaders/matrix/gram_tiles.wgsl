// The lower blocks of L Rᵀ, one per workgroup.

import package::matrix::{products::{TWO_FACTORS, lower}, tiles::{BLOCK, DEPTH, Factor, multiply}};
import package::tables::{Invocation, chunks, grid, linear_block};

@compute @workgroup_size(256)
fn gram(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = 4u * ((grid.m + 3u) / 4u);
    let down = (rows + BLOCK - 1u) / BLOCK;
    let b = linear_block(in);
    if b < down * (down + 1u) / 2u {
        let block = BLOCK * lower(b, down);
        let is_across = lane >= 128u;
        // Neighbors stage different rows, which lie in different banks of workgroup memory.
        let slot = lane % 8u + 8u * (lane % 128u / (2u * DEPTH));
        let row = min(select(block.x, block.y, is_across) + 4u * slot, rows - 4u);
        let base = matrix.part * select(grid.left_slot, grid.right_slot, is_across) + row * grid.left_stride;
        let column = lane / 8u % (DEPTH / 4u);
        let factor = Factor(is_across, TWO_FACTORS && is_across, base, grid.left_stride, column, slot);
        multiply(matrix, lane, block.x, block.y, factor, grid.depth);
    }
}
