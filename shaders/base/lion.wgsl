// u = sign(β1 m + (1−β1) g) ;  m ← β2 m + (1−β2) g

import package::state::{State, Update};
import package::tables::Scalars;

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    let interpolated = s.beta1 * old.exp_avg + s.one_minus_beta1 * g;
    let m = s.beta2 * old.exp_avg + s.one_minus_beta2 * g;
    return Update(sign(interpolated), State(m));
}
