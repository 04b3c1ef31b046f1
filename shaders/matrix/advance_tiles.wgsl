// X ← B X for a symmetric B, one block per workgroup.

import package::{matrix::products::{left, right}, matrix::staged::Staged};
import package::matrix::tiles::{DEPTH, Product, across_tile, add_tiles, down_tile, steps, store_product};
import package::tables::{Invocation, chunks, grid, linear_block};

@compute @workgroup_size(64)
fn advance(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = (grid.m + 3u) / 4u;                  // vectors
    let columns = (grid.n + 3u) / 4u;
    let across = (columns + 15u) / 16u;
    let b = linear_block(in);
    if b < (rows + 15u) / 16u * across {
        let i = 16u * (b / across);
        let j = 16u * (b % across);
        let at_b = matrix.part * grid.gram_slot + min(i + lane % 16u, rows - 1u);
        let at_x = matrix.part * grid.left_slot + min(j + lane % 16u, columns - 1u);
        if lane == 0u { steps = (4u * rows + DEPTH - 1u) / DEPTH; }
        // Not the uniform itself: some drivers compile a kernel again for each value that bounds a loop.
        let end = workgroupUniformLoad(&steps);
        var product: Product;
        for (var step = 0u; step < end; step += 1u) {
            // An invocation stages every fourth row of a column of vectors.
            for (var e = 0u; e < 4u; e += 1u) {
                let k = 4u * e + lane / 16u;
                let row = DEPTH * step + k;
                let inside = row < 4u * rows;
                let last = min(row, 4u * rows - 1u);
                let b = select(vec4<f32>(), right[at_b + last * grid.gram_stride], inside);
                let x = select(vec4<f32>(), left[at_x + last * grid.left_stride], inside);
                down_tile[16u * k + lane % 16u] = Staged(b);
                across_tile[16u * k + lane % 16u] = Staged(x);
            }
            workgroupBarrier();
            product = add_tiles(lane, product);
            workgroupBarrier();
        }
        let to = matrix.part * grid.result_slot;
        store_product(lane, to, grid.left_stride, 4u * i, j, 4u * rows, columns, product);
    }
}
