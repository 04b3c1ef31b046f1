// u = g / (√(R / mean R) √C), with the new moments R and C of a matrix

import package::state::{State, Update};
import package::lib::largest::within_squares;
import package::tables::Scalars;

fn direction_of(state: State, g: vec4<f32>, s: Scalars) -> vec4<f32> {
    return within_squares(g) / (sqrt(s.weight1 * state.row_var) * sqrt(state.col_var));
}

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    return Update(direction_of(old, g, s), old);
}
