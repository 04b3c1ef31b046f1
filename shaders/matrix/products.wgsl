// Where matrices are orthogonalized: X of m × n, m ≤ n, its successor, and polynomials of X Xᵀ, rows of vectors of four, padded with zeros
// to a multiple of four rows. Each matrix has a slot in each.

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

// Four rows of a product from `first` on, four columns of them, unless they lie beyond the last; columns count vectors.
fn store(base: u32, stride: u32, first: u32, column: u32, rows: u32, columns: u32, tile: mat4x4<f32>) {
    if first < rows && column < columns {
        let at = base + first * stride + column;
        result[at] = tile[0];
        result[at + stride] = tile[1];
        result[at + 2u * stride] = tile[2];
        result[at + 3u * stride] = tile[3];
    }
}

// The same for two, and for four, neighbors.
fn store_2(base: u32, stride: u32, first: u32, column: u32, rows: u32, columns: u32, t0: mat4x4<f32>, t1: mat4x4<f32>) {
    store(base, stride, first, column, rows, columns, t0);
    store(base, stride, first, column + 1u, rows, columns, t1);
}

fn store_4(
    base: u32,
    stride: u32,
    first: u32,
    column: u32,
    rows: u32,
    columns: u32,
    t0: mat4x4<f32>,
    t1: mat4x4<f32>,
    t2: mat4x4<f32>,
    t3: mat4x4<f32>,
) {
    store_2(base, stride, first, column, rows, columns, t0, t1);
    store_2(base, stride, first, column + 2u, rows, columns, t2, t3);
}
