// Where matrices are orthogonalized: X of m × n, m ≤ n, its successor, and polynomials of X Xᵀ, rows of vectors of four, padded with zeros
// to a multiple of four rows. Each matrix has a slot in each.

import package::tables::{Chunk, EACH, grid, scalars};

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> result: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read_write> right: array<vec4<f32>>;

// Whether the right factor of L Rᵀ is another matrix than the left one. The product is still symmetric: both are polynomials of one.
override TWO_FACTORS: bool = false;

// Four rows of four columns, a row a column of the result.
fn four(first: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(left[first], left[first + stride], left[first + 2u * stride], left[first + 3u * stride]);
}

fn four_of_right(first: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(right[first], right[first + stride], right[first + 2u * stride], right[first + 3u * stride]);
}

// Four rows of R.
fn four_across(first: u32, stride: u32) -> mat4x4<f32> {
    if TWO_FACTORS { return four_of_right(first, stride); }
    return four(first, stride);
}

// Row and column of the b-th block of a lower triangle that is `down` blocks high: its columns, folded, fill a rectangle.
fn lower(b: u32, down: u32) -> vec2<u32> {
    let x = b % (down + 1u);
    let y = b / (down + 1u);
    let short = down - y;
    return select(vec2<u32>(y + x, y), vec2<u32>(x + down - 1u - y - short, down - 1u - y), x >= short);
}

// The m × m products are symmetric: their kernels compute what lies on and below the diagonal, and store it above too.
override SYMMETRIC: bool = false;
// Whether the product is S = L L of a symmetric L, and a I + b L + c S is stored in its place.
override POLYNOMIAL: bool = false;

fn four_of_polynomial(matrix: Chunk, first: u32, column: u32, s: mat4x4<f32>) -> mat4x4<f32> {
    let ns = scalars[matrix.scalars].ns[grid.iteration];
    let l = four(matrix.part * grid.left_slot + first * grid.left_stride + column, grid.left_stride);
    var all = ns.y * l + ns.z * s;
    // Only on the diagonal, and not in the padding, which stays zero.
    let rows = vec4<u32>(select(0u, grid.m, first == 4u * column));
    let a = select(vec4<f32>(), vec4<f32>(ns.x), vec4<u32>(first) + EACH < rows);
    all[0].x += a.x; all[1].y += a.y; all[2].z += a.z; all[3].w += a.w;
    return all;
}

fn store_four(at: u32, stride: u32, tile: mat4x4<f32>) {
    result[at] = tile[0];
    result[at + stride] = tile[1];
    result[at + 2u * stride] = tile[2];
    result[at + 3u * stride] = tile[3];
}

// Four rows of a product from `first` on, four columns of them, unless they lie beyond the last; columns count vectors.
fn store(matrix: Chunk, first: u32, column: u32, tile: mat4x4<f32>) {
    let base = matrix.part * grid.result_slot;
    if SYMMETRIC {
        if first < grid.m && 4u * column <= first {
            var whole = tile;
            if POLYNOMIAL { whole = four_of_polynomial(matrix, first, column, tile); }
            store_four(base + first * grid.gram_stride + column, grid.gram_stride, whole);
            if 4u * column < first {
                store_four(base + 4u * column * grid.gram_stride + first / 4u, grid.gram_stride, transpose(whole));
            }
        }
    } else if first < grid.m && 4u * column < grid.n {
        store_four(base + first * grid.left_stride + column, grid.left_stride, tile);
    }
}
