// For GPUs: a workgroup of 256 has a block of BLOCK × BLOCK of the product, and stages DEPTH columns of its factors at a time in 16 KiB of
// workgroup memory. An invocation computes 8 × 8 values: four matrices of 4 × 4, half a block apart, so that neighbors read neighboring
// vectors. Where a block has fewer values, the invocations share its depth too.

import package::matrix::{products::{SYMMETRIC, four, four_of_right, store}, staged::Staged};
import package::tables::Chunk;

const BLOCK: u32 = 64u;
const VECTORS: u32 = BLOCK / 4u;
const DEPTH: u32 = 2048u / BLOCK;
const HALF: u32 = BLOCK / 8u;
const PARTS: u32 = 256u / (HALF * HALF);
const PART_DEPTH: u32 = DEPTH / PARTS;

// Down and across; part of the depth; column of the factor; four rows of it. Only the last has an index that is not known when the loop
// begins, which leaves one clamp of an index per load, outside of the loop.
var<workgroup> tiles: array<array<array<array<Staged, VECTORS>, PART_DEPTH>, PARTS>, 2>;

struct Product {
    c00: mat4x4<f32>,
    c01: mat4x4<f32>,
    c10: mat4x4<f32>,
    c11: mat4x4<f32>,
}

fn outer(down: vec4<f32>, across: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(across * down.x, across * down.y, across * down.z, across * down.w);
}

fn add_column(sums: Product, part: u32, k: u32, at: vec2<u32>) -> Product {
    let d0 = vec4<f32>(tiles[0][part][k][at.x]);
    let d1 = vec4<f32>(tiles[0][part][k][at.x + HALF]);
    let a0 = vec4<f32>(tiles[1][part][k][at.y]);
    let a1 = vec4<f32>(tiles[1][part][k][at.y + HALF]);
    return Product(
        sums.c00 + outer(d0, a0),
        sums.c01 + outer(d0, a1),
        sums.c10 + outer(d1, a0),
        sums.c11 + outer(d1, a1),
    );
}

// What an invocation stages of a factor: four rows of four columns of every DEPTH. Half of the invocations stage either factor.
struct Factor {
    is_across: bool,
    is_right: bool,     // from which binding
    at: u32,
    stride: u32,
    column: u32,        // vectors
    slot: u32,
}

// The k-th four columns of L and R, or rows of B and X; zeros after the last.
fn load(factor: Factor, k: u32, depth: u32) -> mat4x4<f32> {
    if k >= depth { return mat4x4<f32>(); }
    let at = factor.at + k * select(4u * factor.stride, 1u, SYMMETRIC);
    var columns: mat4x4<f32>;
    if factor.is_right { columns = four_of_right(at, factor.stride); } else { columns = four(at, factor.stride); }
    if SYMMETRIC { return transpose(columns); }
    return columns;
}

fn stage(factor: Factor, columns: mat4x4<f32>) {
    let side = select(0u, 1u, factor.is_across);
    let part = 4u * factor.column / PART_DEPTH;
    let k = 4u * factor.column % PART_DEPTH;
    tiles[side][part][k][factor.slot] = Staged(columns[0]);
    tiles[side][part][k + 1u][factor.slot] = Staged(columns[1]);
    tiles[side][part][k + 2u][factor.slot] = Staged(columns[2]);
    tiles[side][part][k + 3u][factor.slot] = Staged(columns[3]);
}

fn lend(lane: u32, q: u32, sums: mat4x4<f32>) {
    tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u][lane % 16u] = Staged(sums[0]);
    tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 1u][lane % 16u] = Staged(sums[1]);
    tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 2u][lane % 16u] = Staged(sums[2]);
    tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 3u][lane % 16u] = Staged(sums[3]);
}

fn lent(lane: u32, q: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        vec4<f32>(tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u][lane % 16u]),
        vec4<f32>(tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 1u][lane % 16u]),
        vec4<f32>(tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 2u][lane % 16u]),
        vec4<f32>(tiles[q / 2u][lane / 16u % 4u][q % 2u * 4u + 3u][lane % 16u]),
    );
}

// Stores the block whose first row and column these are, of a sum over so many vectors.
fn multiply(matrix: Chunk, lane: u32, row: u32, column: u32, factor: Factor, depth: u32) {
    // Not from the uniform alone: some drivers compile a kernel again for each value that bounds a loop.
    let stages = min((4u * depth + DEPTH - 1u) / DEPTH, matrix.len);
    // A subgroup has 4 × 8 vectors, which is the fewest different ones to read.
    let part = lane / (HALF * HALF);
    let group = lane / 32u % (HALF * HALF / 32u);
    let at = vec2<u32>(group / (HALF / 8u) * 4u + lane / 8u % 4u, group % (HALF / 8u) * 8u + lane % 8u);
    var sums: Product;
    var ahead = load(factor, factor.column, depth);
    for (var i = 1u; i <= stages; i += 1u) {
        stage(factor, ahead);
        workgroupBarrier();
        // What is staged next arrives while this is added.
        ahead = load(factor, DEPTH / 4u * i + factor.column, depth);
        for (var k = 0u; k < PART_DEPTH; k += 4u) {
            sums = add_column(sums, part, k, at);
            sums = add_column(sums, part, k + 1u, at);
            sums = add_column(sums, part, k + 2u, at);
            sums = add_column(sums, part, k + 3u, at);
        }
        workgroupBarrier();
    }
    // The parts of the depth, in their order. Where tiles are f16, there is one, so no sum is rounded.
    for (var i = 1u; i < PARTS; i += 1u) {
        if part == i {
            lend(lane, 0u, sums.c00);
            lend(lane, 1u, sums.c01);
            lend(lane, 2u, sums.c10);
            lend(lane, 3u, sums.c11);
        }
        workgroupBarrier();
        if part == 0u {
            sums.c00 += lent(lane, 0u);
            sums.c01 += lent(lane, 1u);
            sums.c10 += lent(lane, 2u);
            sums.c11 += lent(lane, 3u);
        }
        workgroupBarrier();
    }
    if part == 0u {
        let first = row + 4u * at.x;
        let vector = column / 4u + at.y;
        store(matrix, first, vector, sums.c00);
        store(matrix, first, vector + HALF, sums.c01);
        store(matrix, first + 4u * HALF, vector, sums.c10);
        store(matrix, first + 4u * HALF, vector + HALF, sums.c11);
    }
}
