// For adapters that are CPUs: an invocation holds a block of 16 × 16 of the product in registers, four by four matrices, and
// adds products of four columns with four rows.

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

// Rows `first` to `first + 3` of a block, unless they lie beyond the last.
fn store(base: u32, stride: u32, first: u32, column: u32, rows: u32, columns: u32, tile: mat4x4<f32>) {
    if first < rows && column < columns {
        let at = base + first * stride + column;
        result[at] = tile[0];
        result[at + stride] = tile[1];
        result[at + 2u * stride] = tile[2];
        result[at + 3u * stride] = tile[3];
    }
}
