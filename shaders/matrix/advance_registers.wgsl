// X ← B X for a symmetric B, one block per invocation.

import package::{matrix::products::{four, four_of_right}, matrix::registers::{REGISTER_LANES, gain, store_all}};
import package::tables::{EACH, Invocation, chunks, grid, linear_block, opaque};

@compute @workgroup_size(8)
fn advance(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = (grid.m + 3u) / 4u;
    let columns = (grid.n + 3u) / 4u;
    let stride = grid.left_stride;
    let base = matrix.part * grid.left_slot;
    let down = (rows + 3u) / 4u;
    let across = (columns + 3u) / 4u;
    let depth = opaque(4u * rows, lane < REGISTER_LANES);
    let blocks = down * across;
    let b = linear_block(in) * REGISTER_LANES + lane;
    if b < blocks {
        let i = 4u * (b / across);
        let j = 4u * (b % across);
        var at_i = matrix.part * grid.gram_slot + min(vec4<u32>(i) + EACH, vec4<u32>(rows - 1u));
        var at_j = base + min(vec4<u32>(j) + EACH, vec4<u32>(columns - 1u));
        var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>(); var c02 = mat4x4<f32>(); var c03 = mat4x4<f32>();
        var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>(); var c12 = mat4x4<f32>(); var c13 = mat4x4<f32>();
        var c20 = mat4x4<f32>(); var c21 = mat4x4<f32>(); var c22 = mat4x4<f32>(); var c23 = mat4x4<f32>();
        var c30 = mat4x4<f32>(); var c31 = mat4x4<f32>(); var c32 = mat4x4<f32>(); var c33 = mat4x4<f32>();
        for (var k = 0u; k < depth; k += 4u) {
            let b0 = transpose(four_of_right(at_i[0], grid.gram_stride));
            let b1 = transpose(four_of_right(at_i[1], grid.gram_stride));
            let b2 = transpose(four_of_right(at_i[2], grid.gram_stride));
            let b3 = transpose(four_of_right(at_i[3], grid.gram_stride));
            let x0 = four(at_j[0], stride);
            c00 = gain(c00, x0, b0); c10 = gain(c10, x0, b1); c20 = gain(c20, x0, b2); c30 = gain(c30, x0, b3);
            let x1 = four(at_j[1], stride);
            c01 = gain(c01, x1, b0); c11 = gain(c11, x1, b1); c21 = gain(c21, x1, b2); c31 = gain(c31, x1, b3);
            let x2 = four(at_j[2], stride);
            c02 = gain(c02, x2, b0); c12 = gain(c12, x2, b1); c22 = gain(c22, x2, b2); c32 = gain(c32, x2, b3);
            let x3 = four(at_j[3], stride);
            c03 = gain(c03, x3, b0); c13 = gain(c13, x3, b1); c23 = gain(c23, x3, b2); c33 = gain(c33, x3, b3);
            at_i += vec4<u32>(4u * grid.gram_stride);
            at_j += vec4<u32>(4u * stride);
        }
        store_all(matrix, 4u * i, j, 4u, array<mat4x4<f32>, 16>(
            c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33,
        ));
    }
}
