// The state has moved on, so the stream notes the direction: 0, 1, −1 (2), or that the score is not a number (3). The product of such a
// direction and a gradient is exact, and the decision follows from it again.

import package::state::State;
import package::lib::{notes::{decide, pack_notes}, order::NAN_KEY};
import package::tables::Scalars;

fn note(direction: vec4<f32>, found: vec4<u32>, selected: vec4<bool>, undecided: vec4<bool>) -> u32 {
    let nan = found == vec4<u32>(NAN_KEY);
    return pack_notes((direction > vec4<f32>()) | nan, (direction < vec4<f32>()) | nan);
}

fn recall(state: State, g: vec4<f32>, noted: vec4<u32>, s: Scalars) -> vec4<f32> {
    let negative = select(vec4<f32>(), vec4<f32>(-1.0), noted == vec4<u32>(2u));
    return select(negative, vec4<f32>(1.0), noted == vec4<u32>(1u));
}

fn recall_key(found: vec4<u32>, noted: vec4<u32>) -> vec4<u32> {
    return select(found, vec4<u32>(NAN_KEY), noted == vec4<u32>(3u));
}

fn decided(noted: vec4<u32>, selected: vec4<bool>, bracketed: vec4<bool>) -> vec4<u32> {
    return decide(selected, bracketed & !selected);
}
