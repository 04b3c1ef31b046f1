// The lower blocks of L Rᵀ, one per invocation.

import package::{matrix::products::{four, four_across, lower}, matrix::registers::{BLOCK, REGISTER_LANES, gain, store_all}};
import package::tables::{Invocation, chunks, grid, linear_block, opaque};

@compute @workgroup_size(8)
fn gram(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = 4u * ((grid.m + 3u) / 4u);
    let stride = grid.left_stride;
    let base = matrix.part * grid.left_slot;
    let depth = opaque(grid.depth, lane < REGISTER_LANES);
    let down = (rows + BLOCK - 1u) / BLOCK;
    let blocks = down * (down + 1u) / 2u;
    let b = linear_block(in) * REGISTER_LANES + lane;
    if b < blocks {
        let block = BLOCK * lower(b, down);
        let i = min(vec4<u32>(block.x) + vec4<u32>(0u, 4u, 8u, 12u), vec4<u32>(rows - 4u));
        let j = min(vec4<u32>(block.y) + vec4<u32>(0u, 4u, 8u, 12u), vec4<u32>(rows - 4u));
        let at_i = base + i * stride;
        let at_j = matrix.part * grid.right_slot + j * stride;
        var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>(); var c02 = mat4x4<f32>(); var c03 = mat4x4<f32>();
        var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>(); var c12 = mat4x4<f32>(); var c13 = mat4x4<f32>();
        var c20 = mat4x4<f32>(); var c21 = mat4x4<f32>(); var c22 = mat4x4<f32>(); var c23 = mat4x4<f32>();
        var c30 = mat4x4<f32>(); var c31 = mat4x4<f32>(); var c32 = mat4x4<f32>(); var c33 = mat4x4<f32>();
        for (var k = 0u; k < depth; k += 1u) {
            let a0 = transpose(four_across(at_j[0] + k, stride));
            let a1 = transpose(four_across(at_j[1] + k, stride));
            let a2 = transpose(four_across(at_j[2] + k, stride));
            let a3 = transpose(four_across(at_j[3] + k, stride));
            let b0 = four(at_i[0] + k, stride);
            c00 = gain(c00, a0, b0); c01 = gain(c01, a1, b0); c02 = gain(c02, a2, b0); c03 = gain(c03, a3, b0);
            let b1 = four(at_i[1] + k, stride);
            c10 = gain(c10, a0, b1); c11 = gain(c11, a1, b1); c12 = gain(c12, a2, b1); c13 = gain(c13, a3, b1);
            let b2 = four(at_i[2] + k, stride);
            c20 = gain(c20, a0, b2); c21 = gain(c21, a1, b2); c22 = gain(c22, a2, b2); c23 = gain(c23, a3, b2);
            let b3 = four(at_i[3] + k, stride);
            c30 = gain(c30, a0, b3); c31 = gain(c31, a1, b3); c32 = gain(c32, a2, b3); c33 = gain(c33, a3, b3);
        }
        store_all(matrix, block.x, block.y / 4u, 4u, array<mat4x4<f32>, 16>(
            c00, c01, c02, c03, c10, c11, c12, c13, c20, c21, c22, c23, c30, c31, c32, c33,
        ));
    }
}
