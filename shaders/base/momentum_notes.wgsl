// As for AdamW: the direction follows from the state and the gradient again, but perhaps not to the last bit.
fn note(direction: vec4<f32>, found: vec4<u32>, selected: vec4<bool>, undecided: vec4<bool>) -> u32 {
    return pack_notes(selected, undecided);
}

fn recall(state: State, g: vec4<f32>, noted: vec4<u32>, row: Row) -> vec4<f32> {
    return row.beta2 * state.momentum + row.one_minus_beta2 * g;
}

fn recall_key(found: vec4<u32>, noted: vec4<u32>) -> vec4<u32> {
    return found;
}

fn decided(noted: vec4<u32>, selected: vec4<bool>, bracketed: vec4<bool>) -> vec4<u32> {
    return noted;
}
