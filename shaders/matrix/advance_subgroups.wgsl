// X ← B X for a symmetric B, for adapters that are CPUs with subgroups of 8: a block of 32 × 64 per workgroup, which shares what it reads of
// B.

import package::{matrix::products::{four, right}, matrix::registers::{REGISTER_LANES, gain, store_all}};
import package::tables::{Invocation, chunks, grid, linear_block, opaque};

@compute @workgroup_size(8)
fn advance(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let rows = (grid.m + 3u) / 4u;                  // vectors
    let columns = (grid.n + 3u) / 4u;
    let stride = grid.left_stride;
    let base = matrix.part * grid.left_slot;
    let across = (columns + 15u) / 16u;
    let depth = opaque(4u * rows, lane < REGISTER_LANES);
    let b = linear_block(in);
    if b < (rows + 7u) / 8u * across {
        let i = 8u * (b / across);
        let j = 16u * (b % across) + 2u * lane;
        var at_i = matrix.part * grid.gram_slot + min(i + lane, rows - 1u);
        var at_j = base + min(vec2<u32>(j) + vec2<u32>(0u, 1u), vec2<u32>(columns - 1u));
        var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>(); var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>();
        var c20 = mat4x4<f32>(); var c21 = mat4x4<f32>(); var c30 = mat4x4<f32>(); var c31 = mat4x4<f32>();
        var c40 = mat4x4<f32>(); var c41 = mat4x4<f32>(); var c50 = mat4x4<f32>(); var c51 = mat4x4<f32>();
        var c60 = mat4x4<f32>(); var c61 = mat4x4<f32>(); var c70 = mat4x4<f32>(); var c71 = mat4x4<f32>();
        for (var k = 0u; k < depth; k += 4u) {
            let v0 = right[at_i + 0u * grid.gram_stride];
            let v1 = right[at_i + 1u * grid.gram_stride];
            let v2 = right[at_i + 2u * grid.gram_stride];
            let v3 = right[at_i + 3u * grid.gram_stride];
            let x0 = four(at_j[0], stride);
            let x1 = four(at_j[1], stride);
            let b0 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 0u), subgroupBroadcast(v1, 0u), subgroupBroadcast(v2, 0u), subgroupBroadcast(v3, 0u)));
            c00 = gain(c00, x0, b0); c01 = gain(c01, x1, b0);
            let b1 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 1u), subgroupBroadcast(v1, 1u), subgroupBroadcast(v2, 1u), subgroupBroadcast(v3, 1u)));
            c10 = gain(c10, x0, b1); c11 = gain(c11, x1, b1);
            let b2 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 2u), subgroupBroadcast(v1, 2u), subgroupBroadcast(v2, 2u), subgroupBroadcast(v3, 2u)));
            c20 = gain(c20, x0, b2); c21 = gain(c21, x1, b2);
            let b3 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 3u), subgroupBroadcast(v1, 3u), subgroupBroadcast(v2, 3u), subgroupBroadcast(v3, 3u)));
            c30 = gain(c30, x0, b3); c31 = gain(c31, x1, b3);
            let b4 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 4u), subgroupBroadcast(v1, 4u), subgroupBroadcast(v2, 4u), subgroupBroadcast(v3, 4u)));
            c40 = gain(c40, x0, b4); c41 = gain(c41, x1, b4);
            let b5 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 5u), subgroupBroadcast(v1, 5u), subgroupBroadcast(v2, 5u), subgroupBroadcast(v3, 5u)));
            c50 = gain(c50, x0, b5); c51 = gain(c51, x1, b5);
            let b6 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 6u), subgroupBroadcast(v1, 6u), subgroupBroadcast(v2, 6u), subgroupBroadcast(v3, 6u)));
            c60 = gain(c60, x0, b6); c61 = gain(c61, x1, b6);
            let b7 = transpose(mat4x4<f32>(subgroupBroadcast(v0, 7u), subgroupBroadcast(v1, 7u), subgroupBroadcast(v2, 7u), subgroupBroadcast(v3, 7u)));
            c70 = gain(c70, x0, b7); c71 = gain(c71, x1, b7);
            at_i += 4u * grid.gram_stride;
            at_j += vec2<u32>(4u * stride);
        }
        store_all(matrix, 4u * i, j, 2u, array<mat4x4<f32>, 16>(
            c00, c01, c10, c11, c20, c21, c30, c31, c40, c41, c50, c51, c60, c61, c70, c71,
        ));
    }
}
