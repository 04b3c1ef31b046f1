// X ← d / (‖d‖ + 1e-7), transposed if it is tall, padded with zeros: a vector of four columns per invocation.

import package::matrix::positions::{Position, position_of, stored};
import package::lib::far::FAR;
import package::tables::{Chunk, Invocation, chunks, grid, linear_block, tensors};

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> directions: array<f32>;

fn direction(matrix: Chunk, position: Position, column: u32) -> f32 {
    if position.row >= grid.m || column >= grid.n { return 0.0; }
    return directions[matrix.offset + stored(matrix, position.row, column)];
}

@compute @workgroup_size(64)
fn enter(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let position = position_of(matrix, linear_block(in) * 64u + lane);
    if position.inside {
        let c = 4u * position.vector;
        let d = vec4<f32>(
            direction(matrix, position, c),
            direction(matrix, position, c + 1u),
            direction(matrix, position, c + 2u),
            direction(matrix, position, c + 3u),
        );
        let at = matrix.part * grid.left_slot + position.row * grid.left_stride + position.vector;
        let inverse = tensors.each[matrix.tensor].inverse_norm;
        left[at] = select(d, FAR * d, inverse < 0.0) * abs(inverse);
    }
}
