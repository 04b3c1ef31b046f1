// θ ← θ − rate (decay θ + step φ u)

import package::tables::Scalars;

fn step(theta: vec4<f32>, factor: vec4<f32>, direction: vec4<f32>, rate: vec4<f32>, s: Scalars) -> vec4<f32> {
    return theta - rate * (s.decay * theta + s.step * (factor * direction));
}
