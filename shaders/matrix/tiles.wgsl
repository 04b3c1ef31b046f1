// For GPUs: a workgroup of 8 × 8 invocations has a block of 64 × 64 of the product, and stages 16 columns of its factors at a time in
// workgroup memory. An invocation holds four matrices of 4 × 4, which lie 32 rows and columns apart, so that neighbors read neighboring
// vectors.

import package::{matrix::products::store, matrix::staged::Staged};

const BLOCK: u32 = 64u;
const DEPTH: u32 = 16u;

var<workgroup> down_tile: array<Staged, 256>;    // 16 columns of 64 rows, vectors of four rows
var<workgroup> across_tile: array<Staged, 256>;
var<workgroup> steps: u32;

struct Product {
    c00: mat4x4<f32>,
    c01: mat4x4<f32>,
    c10: mat4x4<f32>,
    c11: mat4x4<f32>,
}

fn outer(down: vec4<f32>, across: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(across * down.x, across * down.y, across * down.z, across * down.w);
}

// Adds what is staged.
fn add_tiles(lane: u32, product: Product) -> Product {
    var next = product;
    for (var k = 0u; k < DEPTH; k += 1u) {
        let d0 = vec4<f32>(down_tile[16u * k + lane / 8u]);
        let d1 = vec4<f32>(down_tile[16u * k + lane / 8u + 8u]);
        let a0 = vec4<f32>(across_tile[16u * k + lane % 8u]);
        let a1 = vec4<f32>(across_tile[16u * k + lane % 8u + 8u]);
        next.c00 += outer(d0, a0);
        next.c01 += outer(d0, a1);
        next.c10 += outer(d1, a0);
        next.c11 += outer(d1, a1);
    }
    return next;
}

// Row and column count in coordinates and vectors.
fn store_product(lane: u32, base: u32, stride: u32, row: u32, column: u32, rows: u32, columns: u32, product: Product) {
    let r = row + 4u * (lane / 8u);
    let c = column + lane % 8u;
    store(base, stride, r, c, rows, columns, product.c00);
    store(base, stride, r, c + 8u, rows, columns, product.c01);
    store(base, stride, r + 32u, c, rows, columns, product.c10);
    store(base, stride, r + 32u, c + 8u, rows, columns, product.c11);
}
