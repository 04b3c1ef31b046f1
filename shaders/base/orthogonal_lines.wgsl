// What is left of an orthogonalized direction: a step along it, with a factor for each row or column.

import package::state::{State, Update};
import package::tables::Scalars;

fn update(old: State, g: vec4<f32>, s: Scalars) -> Update {
    return Update(old.factor * old.orthogonal, old);
}
