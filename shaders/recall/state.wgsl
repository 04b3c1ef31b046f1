// The stream notes its decision. The direction follows again from the new state and the gradient, but perhaps not to the last bit.

import package::{base::direction_of, state::State};
import package::lib::notes::pack_notes;
import package::tables::Scalars;

fn note(direction: vec4<f32>, found: vec4<u32>, selected: vec4<bool>, undecided: vec4<bool>) -> u32 {
    return pack_notes(selected, undecided);
}

fn recall(state: State, g: vec4<f32>, noted: vec4<u32>, s: Scalars) -> vec4<f32> {
    return direction_of(state, g, s);
}

fn recall_key(found: vec4<u32>, noted: vec4<u32>) -> vec4<u32> {
    return found;
}

fn decided(noted: vec4<u32>, selected: vec4<bool>, bracketed: vec4<bool>) -> vec4<u32> {
    return noted;
}
