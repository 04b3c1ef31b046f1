// Grams: the sign of the score.
//
//@ policy own_grams

fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> {
    return sign(score);
}
