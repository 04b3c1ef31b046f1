// A custom update policy. It computes the factor φ of each coordinate from its score s = u · g, four coordinates at a time. A score is
// positive where the base's direction u agrees with the gradient g.
//
//   φ = 1 where s > 0, else the hyper-parameter `against`
//
//@ policy my_optimizer
// A policy has at most two hyper-parameters, declared with `//@ scalar NAME = VALUE in [LOW, HIGH]`.
//@ scalar against = 0.1 in [0, 1]

fn phi(score: vec4<f32>, s: Scalars) -> vec4<f32> {
    return select(vec4<f32>(s.against), vec4<f32>(1.0), score > vec4<f32>(0.0));
}
