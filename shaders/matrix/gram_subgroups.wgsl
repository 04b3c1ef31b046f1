// The lower blocks of L Rᵀ, for adapters that are CPUs with subgroups of 8, where loads are what costs: a workgroup, which is a subgroup,
// has half of a block of 64 × 64 and shares its 32 rows; an invocation has 8 of its columns.

import package::{matrix::products::{four_across, left, lower}, matrix::registers::{REGISTER_LANES, gain, store_all}};
import package::tables::{Invocation, chunks, grid, linear_block, opaque};

// Four rows of which lanes 0 to 3, or 4 to 7, hold one each.
fn low(v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(subgroupBroadcast(v, 0u), subgroupBroadcast(v, 1u), subgroupBroadcast(v, 2u), subgroupBroadcast(v, 3u));
}

fn high(v: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(subgroupBroadcast(v, 4u), subgroupBroadcast(v, 5u), subgroupBroadcast(v, 6u), subgroupBroadcast(v, 7u));
}

@compute @workgroup_size(8)
fn gram(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = 4u * ((grid.m + 3u) / 4u);
    let stride = grid.left_stride;
    let base = matrix.part * grid.left_slot;
    let depth = opaque(grid.depth, lane < REGISTER_LANES);
    let down = (rows + 63u) / 64u;
    let b = linear_block(in);
    if b < down * (down + 1u) {
        let block = 64u * lower(b / 2u, down) + vec2<u32>(32u * (b % 2u), 8u * lane);
        let i = base + min(vec4<u32>(block.x + lane) + vec4<u32>(0u, 8u, 16u, 24u), vec4<u32>(rows - 1u)) * stride;
        let j = matrix.part * grid.right_slot + min(vec2<u32>(block.y) + vec2<u32>(0u, 4u), vec2<u32>(rows - 4u)) * stride;
        var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>(); var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>();
        var c20 = mat4x4<f32>(); var c21 = mat4x4<f32>(); var c30 = mat4x4<f32>(); var c31 = mat4x4<f32>();
        var c40 = mat4x4<f32>(); var c41 = mat4x4<f32>(); var c50 = mat4x4<f32>(); var c51 = mat4x4<f32>();
        var c60 = mat4x4<f32>(); var c61 = mat4x4<f32>(); var c70 = mat4x4<f32>(); var c71 = mat4x4<f32>();
        for (var k = 0u; k < depth; k += 1u) {
            let a0 = transpose(four_across(j[0] + k, stride));
            let a1 = transpose(four_across(j[1] + k, stride));
            let v0 = left[i[0] + k];
            let b0 = low(v0);
            c00 = gain(c00, a0, b0); c01 = gain(c01, a1, b0);
            let b1 = high(v0);
            c10 = gain(c10, a0, b1); c11 = gain(c11, a1, b1);
            let v1 = left[i[1] + k];
            let b2 = low(v1);
            c20 = gain(c20, a0, b2); c21 = gain(c21, a1, b2);
            let b3 = high(v1);
            c30 = gain(c30, a0, b3); c31 = gain(c31, a1, b3);
            let v2 = left[i[2] + k];
            let b4 = low(v2);
            c40 = gain(c40, a0, b4); c41 = gain(c41, a1, b4);
            let b5 = high(v2);
            c50 = gain(c50, a0, b5); c51 = gain(c51, a1, b5);
            let v3 = left[i[3] + k];
            let b6 = low(v3);
            c60 = gain(c60, a0, b6); c61 = gain(c61, a1, b6);
            let b7 = high(v3);
            c70 = gain(c70, a0, b7); c71 = gain(c71, a1, b7);
        }
        store_all(matrix, block.x, block.y / 4u, 2u, array<mat4x4<f32>, 16>(
            c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51, c60, c61, c70, c71,
        ));
    }
}
