// What the stream notes is its decision; the direction follows from the state again, but perhaps not to the last bit.
fn note(direction: vec4<f32>, found: vec4<u32>, selected: vec4<bool>, undecided: vec4<bool>) -> u32 {
    return pack_notes(selected, undecided);
}

fn recall(state: State, g: vec4<f32>, noted: vec4<u32>, row: Row) -> vec4<f32> {
    return state.exp_avg / (sqrt(state.exp_avg_sq) + row.eps);
}

fn recall_key(found: vec4<u32>, noted: vec4<u32>) -> vec4<u32> {
    return found;
}

fn decided(noted: vec4<u32>, selected: vec4<bool>, bracketed: vec4<bool>) -> vec4<u32> {
    return noted;
}
