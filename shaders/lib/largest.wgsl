// A larger |g| counts as this under bases that square it: its square is an f32, so that the second moment stays finite, decays again, and bounds the step.
// NaN stays NaN.

const LARGEST: f32 = 1.84e19;

fn within_squares(g: vec4<f32>) -> vec4<f32> {
    return select(g, sign(g) * LARGEST, abs(g) > vec4<f32>(LARGEST));
}
