// Lion: the momentum moves on by another rate than the direction, which is a sign.
//
//@ base own_lion
//@ lr 1e-4
//@ state exp_avg
//@ decay beta1 = 0.9
//@ decay beta2 = 0.99
//@ signs

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let interpolated = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    return Update(interpolated, State(s.beta2 * old.exp_avg + s.one_minus_beta2 * g));
}
