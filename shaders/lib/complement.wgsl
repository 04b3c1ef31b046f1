// 1 − exp(x), for x < 0: a series where the difference would cancel.

fn complement(x: f32) -> f32 {
    var series = 1.0;
    for (var i = 8u; i > 1u; i -= 1u) {
        series = 1.0 + x / f32(i) * series;
    }
    return select(1.0 - exp(x), -x * series, x > -0.5);
}
