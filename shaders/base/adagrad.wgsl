// a ← a + g² ;  u = g / (√(a₀ + a) + ε)

import package::state::{State, Update};
import package::lib::largest::{LARGEST, within_squares};
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return within_squares(g) / (sqrt(s.accumulator_init + state.sum) + s.eps);
}

fn update(old: State, gradient: vec4<f32>, s: Scalars) -> Update {
    let g = within_squares(gradient);
    let square = g * g;
    // At most the square of the largest: the sum stays finite.
    let state = State(min(old.sum, vec4<f32>(LARGEST * LARGEST) - square) + square);
    return Update(direction_of(state, g, s), state);
}
