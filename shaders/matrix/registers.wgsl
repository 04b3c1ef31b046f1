// For adapters that are CPUs: an invocation holds a block of the product in registers, 16 matrices of 4 × 4, and adds products of four
// columns with four rows.

import package::{matrix::products::store, tables::Chunk};

const BLOCK: u32 = 16u;
const REGISTER_LANES: u32 = 8u;

// c + a b
fn gain(c: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        c[0] + a[0] * b[0][0] + a[1] * b[0][1] + a[2] * b[0][2] + a[3] * b[0][3],
        c[1] + a[0] * b[1][0] + a[1] * b[1][1] + a[2] * b[1][2] + a[3] * b[1][3],
        c[2] + a[0] * b[2][0] + a[1] * b[2][1] + a[2] * b[2][2] + a[3] * b[2][3],
        c[3] + a[0] * b[3][0] + a[1] * b[3][1] + a[2] * b[3][2] + a[3] * b[3][3],
    );
}

// Matrices row after row, `across` of them in each. A loop, because some drivers compile each copy of what a call runs.
fn store_all(matrix: Chunk, row: u32, column: u32, across: u32, matrices: array<mat4x4<f32>, 16>) {
    var all = matrices;
    for (var i = 0u; i < 16u; i += 1u) {
        store(matrix, row + 4u * (i / across), column + i % across, all[i]);
    }
}
