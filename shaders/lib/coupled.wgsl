// g + λ θ, for weight decay that is a part of the gradient. Scores use the gradient without λ θ.

import package::access::param::load_param;
import package::tables::{Chunk, Scalars};

override COUPLED: bool = false;

// The vector of a chunk, or of a piece.
fn coupled(g: vec4<f32>, chunk: Chunk, vector: u32, s: Scalars) -> vec4<f32> {
    if COUPLED { return g + s.penalty * load_param(chunk, vector, min(4u, chunk.len - 4u * vector)); }
    return g;
}
