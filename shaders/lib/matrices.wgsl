// Where matrices are orthogonalised: X of m × n, m ≤ n, its successor, and polynomials of X Xᵀ, rows of vectors of four, padded
// with zeros to a multiple of four rows. Each matrix has a slot in each.

@group(1) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(1) @binding(1) var<storage, read_write> result: array<vec4<f32>>;
@group(1) @binding(2) var<storage, read_write> right: array<vec4<f32>>;

// The second dimension of a dispatch counts matrices.
fn linear_block(workgroup: vec3<u32>, count: vec3<u32>) -> u32 {
    return workgroup.z * count.x + workgroup.x;
}

// Four rows of four columns, a row a column of the result.
fn four(first: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(left[first], left[first + stride], left[first + 2u * stride], left[first + 3u * stride]);
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
