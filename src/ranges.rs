//! What a hyper-parameter may be.

use crate::error::Error;

pub(crate) fn finite_non_negative(x: f64) -> Option<&'static str> {
    // Kernels compute in f32.
    (!(x >= 0.0 && x <= f64::from(f32::MAX))).then_some("finite in f32 and not negative")
}

/// What is added to √v, or 0.
pub(crate) fn normal_or_zero(x: f64) -> Option<&'static str> {
    let range = f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX);
    (x != 0.0 && !range.contains(&x)).then_some("0, or finite in f32 and at least 2^-126 (1.2e-38)")
}

/// What is multiplied, and divided by.
pub(crate) fn invertible(x: f64) -> Option<&'static str> {
    let range = f64::from(f32::MIN_POSITIVE)..=1.0 / f64::from(f32::MIN_POSITIVE);
    (!range.contains(&x))
        .then_some("between 2^-126 (1.2e-38) and 2^126 (8.5e37), so that f32 holds its inverse too")
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

/// A number in a message: never forty digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e16).contains(&size) { format!("{value:e}") } else { value.to_string() }
}

pub(crate) fn check(field: &str, value: f64, rule: fn(f64) -> Option<&'static str>) -> Result<(), Error> {
    match rule(value) {
        None => Ok(()),
        Some(allowed) => {
            Err(Error::Recipe { field: field.to_owned(), value: number(value), allowed: allowed.to_owned() })
        }
    }
}
