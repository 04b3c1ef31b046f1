// A step of a schedule-free base. θ is where gradients are taken, w = z − θ, D is what a plain step subtracts, and c is the weight of z in
// the average:
//     θ ← θ + c w − (1 − β1 (1−c)) D ;  w ← (1−c) (w − β1 D)

import package::tables::Scalars;

struct Averaged {
    param: vec4<f32>,
    offset: vec4<f32>,
}

fn averaged(theta: vec4<f32>, offset: vec4<f32>, taken: vec4<f32>, s: Scalars) -> Averaged {
    let weight = s.weight1;
    let kept = 1.0 - weight;
    return Averaged(theta + (weight * offset - (1.0 - s.beta1 * kept) * taken), kept * (offset - s.beta1 * taken));
}
