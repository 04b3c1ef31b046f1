// What all shaders know of the picture; put before each of them.

struct Picture {
    width: u32,
    height: u32,
    gaussians: u32,
    seed: u32,
}

@group(0) @binding(0) var<uniform> picture: Picture;

