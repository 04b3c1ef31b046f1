// O ← rate · X, as the tensor lies: a vector of four columns of X per invocation.

import package::matrix::positions::{position_of, stored};
import package::tables::{Invocation, chunks, grid, linear_block, tensors};

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> orthogonal: array<f32>;

@compute @workgroup_size(64)
fn leave(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let position = position_of(matrix, linear_block(in) * 64u + lane);
    if position.inside && position.row < grid.m {
        let at = matrix.part * grid.left_slot + position.row * grid.left_stride + position.vector;
        let x = tensors.each[matrix.tensor].rate * left[at];
        for (var e = 0u; e < min(4u, grid.n - 4u * position.vector); e += 1u) {
            orthogonal[matrix.offset + stored(matrix, position.row, 4u * position.vector + e)] = x[e];
        }
    }
}
