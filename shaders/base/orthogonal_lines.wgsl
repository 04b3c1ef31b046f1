// u = factor O: the orthogonalized direction of a matrix, with a factor for each row or column. The momentum has moved on already.

import package::state::{State, Update};
import package::tables::Scalars;

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    return Update(old.factor * old.orthogonal, old);
}
