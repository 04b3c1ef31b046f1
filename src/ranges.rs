//! What a hyper-parameter may be.

use crate::error::Error;

pub(crate) fn finite_non_negative(x: f64) -> Option<&'static str> {
    // Kernels compute in f32.
    (!(x >= 0.0 && x <= f64::from(f32::MAX))).then_some("finite in f32 and not negative")
}

pub(crate) fn finite_positive(x: f64) -> Option<&'static str> {
    // Neither 0 nor subnormal in f32.
    let range = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
    (!range.contains(&x)).then_some("finite in f32 and greater than 0")
}

pub(crate) fn finite(x: f64) -> Option<&'static str> {
    (!x.is_finite() || x.abs() > f64::from(f32::MAX)).then_some("finite in f32")
}

pub(crate) fn square_in_f32(x: f64) -> Option<&'static str> {
    // Neither 0 nor infinite when squared.
    (!(1.1e-19..=1.8e19).contains(&x)).then_some("between 1.1e-19 and 1.8e19")
}

pub(crate) fn ns_steps(x: f64) -> Option<&'static str> {
    (!(1.0..=100.0).contains(&x)).then_some("1 to 100")
}

pub(crate) fn unit_interval(x: f64) -> Option<&'static str> {
    (!(0.0..1.0).contains(&x)).then_some("in [0, 1)")
}

pub(crate) fn open_unit_interval(x: f64) -> Option<&'static str> {
    (!(x > 0.0 && x < 1.0)).then_some("in (0, 1), both ends excluded")
}

pub(crate) fn check(field: &str, value: f64, rule: fn(f64) -> Option<&'static str>) -> Result<(), Error> {
    match rule(value) {
        None => Ok(()),
        Some(allowed) => Err(Error::Recipe {
            field: field.to_owned(),
            value: value.to_string(),
            allowed: allowed.to_owned(),
        }),
    }
}
