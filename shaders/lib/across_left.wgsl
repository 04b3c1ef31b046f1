// R = L: the right factor of L Rᵀ is the left one.

fn four_across(first: u32, stride: u32) -> mat4x4<f32> {
    return four(first, stride);
}
