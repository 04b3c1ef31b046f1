// The lower blocks of L Rᵀ, one per workgroup. `mirror.wgsl` makes the rest of them.

import package::{matrix::products::{four, four_across, lower}, matrix::staged::Staged};
import package::matrix::tiles::{BLOCK, Product, across_tile, add_tiles, down_tile, steps, store_product};
import package::tables::{Invocation, chunks, grid, linear_block};

@compute @workgroup_size(64)
fn gram(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = 4u * ((grid.m + 3u) / 4u);
    let stride = grid.left_stride;
    let base = matrix.part * grid.left_slot;
    let down = (rows + BLOCK - 1u) / BLOCK;
    let b = linear_block(in);
    if b < down * (down + 1u) / 2u {
        let block = BLOCK * lower(b, down);
        // An invocation stages four rows of four columns of each factor.
        let column = lane % 4u;
        let group = lane / 4u;
        let at_down = base + min(block.x + 4u * group, rows - 4u) * stride;
        let at_across = matrix.part * grid.right_slot + min(block.y + 4u * group, rows - 4u) * stride;
        if lane == 0u { steps = (grid.depth + 3u) / 4u; }
        // Not the uniform itself: some drivers compile a kernel again for each value that bounds a loop.
        let end = workgroupUniformLoad(&steps);
        var product: Product;
        for (var step = 0u; step < end; step += 1u) {
            let k = 4u * step + column;
            var d = mat4x4<f32>();
            var a = mat4x4<f32>();
            if k < grid.depth {
                d = transpose(four(at_down + k, stride));
                a = transpose(four_across(at_across + k, stride));
            }
            for (var e = 0u; e < 4u; e += 1u) {
                down_tile[16u * (4u * column + e) + group] = Staged(d[e]);
                across_tile[16u * (4u * column + e) + group] = Staged(a[e]);
            }
            workgroupBarrier();
            product = add_tiles(lane, product);
            workgroupBarrier();
        }
        store_product(lane, matrix.part * grid.result_slot, grid.gram_stride, block.x, block.y / 4u, rows, rows / 4u, product);
    }
}
