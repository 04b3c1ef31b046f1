// u = g / (√(R / mean R) √C), with the new moments R and C of a matrix

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    let u = within_squares(g) / (sqrt(state.row_var) * (s.weight1 * sqrt(state.col_var)));
    // Also where the moments of rows and columns without gradients have vanished.
    return select(u, vec4<f32>(), g == vec4<f32>());
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    return Update(direction_of(old, g, s), old);
}
