// The right factor of L Rᵀ is another matrix, and the product symmetric: both are polynomials of one.

fn four_across(first: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(right[first], right[first + stride], right[first + 2u * stride], right[first + 3u * stride]);
}
