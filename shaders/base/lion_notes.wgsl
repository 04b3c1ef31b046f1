// The momentum moves on, so the stream notes the direction: 0, 1, −1 (2), or no number (3), as the momentum then is. Its
// product with the gradient is exact, and the decision follows from it again.
fn note(direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) -> u32 {
    let nan = (bitcast<vec4<u32>>(direction) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
    return pack_notes((direction > vec4<f32>()) | nan, (direction < vec4<f32>()) | nan);
}

fn recall(state: State, noted: vec4<u32>, row: Row) -> vec4<f32> {
    let negative = select(vec4<f32>(), vec4<f32>(-1.0), noted == vec4<u32>(2u));
    let sign = select(negative, vec4<f32>(1.0), noted == vec4<u32>(1u));
    return select(sign, state.exp_avg, noted == vec4<u32>(3u));
}

fn decided(noted: vec4<u32>, selected: vec4<bool>, bracketed: vec4<bool>) -> vec4<u32> {
    return decide(selected, bracketed & !selected);
}
