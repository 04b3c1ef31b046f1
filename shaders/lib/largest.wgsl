// A larger |g| counts as this under bases that square it: its square is an f32, so that the second moment stays finite, decays again, and bounds the step.
// NaN stays NaN.

const LARGEST: f32 = 1.84e19;

// The norm, at most LARGEST, so that its square is an f32. A norm that is not finite counts as LARGEST. The test looks at bits, because a
// compiler may assume that infinity and NaN do not occur.
fn norm_within(norm: f32) -> f32 {
    let finite = (bitcast<u32>(norm) & 0x7f800000u) != 0x7f800000u;
    return min(select(LARGEST, norm, finite), LARGEST);
}

fn within_squares(g: vec4<f32>) -> vec4<f32> {
    return select(g, sign(g) * LARGEST, abs(g) > vec4<f32>(LARGEST));
}
