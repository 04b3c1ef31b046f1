// θ ← θ − rate (decay θ + step φ u). A cautious decay leaves out coordinates that the step moves away from 0, or the direction where φ = 0.

import package::tables::Scalars;

// What a step subtracts from θ.
fn taken_of(theta: vec4<f32>, factor: vec4<f32>, direction: vec4<f32>, decay: vec4<f32>, rate: vec4<f32>, s: Scalars) -> vec4<f32> {
    let update = factor * direction;
    let zero = vec4<f32>();
    let way = select(update, direction, factor == zero);
    let away = ((theta > zero) & (way < zero)) | ((theta < zero) & (way > zero));
    let decaying = select(theta, zero, away & vec4<bool>(s.cautious_decay == 1u));
    return rate * (decay * decaying + s.step * update);
}

fn step(theta: vec4<f32>, factor: vec4<f32>, direction: vec4<f32>, decay: vec4<f32>, rate: vec4<f32>, s: Scalars) -> vec4<f32> {
    return theta - taken_of(theta, factor, direction, decay, rate, s);
}
