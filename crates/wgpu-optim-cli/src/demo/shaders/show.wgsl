// Draws the fitted picture, target + error, or the target alone, over the whole of a canvas.

@group(0) @binding(1) var<storage, read> target_image: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> errors: array<vec4<f32>>;

@vertex
fn corner(@builtin(vertex_index) i: u32) -> @builtin(position) vec4<f32> {
    // A triangle that covers everything.
    return vec4<f32>(4.0 * f32(i & 1u) - 1.0, 4.0 * f32(i >> 1u) - 1.0, 0.0, 1.0);
}

fn place(at: vec4<f32>) -> u32 {
    return min(u32(at.y), picture.height - 1u) * picture.width + min(u32(at.x), picture.width - 1u);
}

@fragment
fn fitted(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    let i = place(at);
    return vec4<f32>(target_image[i].rgb + errors[i].rgb, 1.0);
}

@fragment
fn wanted(@builtin(position) at: vec4<f32>) -> @location(0) vec4<f32> {
    return vec4<f32>(target_image[place(at)].rgb, 1.0);
}
