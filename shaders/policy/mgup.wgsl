// φ = α for the selected coordinates of a tensor, else γ. `mgup` selects the K largest scores s = u ⊙ g, exactly or by a sample's estimate
// of the K-th largest; `cautious_mgup` selects the positive ones. `package::selection` decides, or a kernel that finds K itself.

import package::tables::{Chunk, Scalars};

fn factors(chunk: Chunk, s: Scalars) -> vec2<f32> {
    return vec2<f32>(s.alpha, s.gamma);
}

fn phi(factors: vec2<f32>, selected: vec4<bool>, score: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(factors.y), vec4<f32>(factors.x), selected);
}
