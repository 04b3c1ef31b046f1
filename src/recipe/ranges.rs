//! Ranges of hyper-parameters.

use crate::error::{Error, Result, ensure};

/// A rule: whether it allows a value, and what it allows, in words.
pub(crate) type Rule = (fn(f64) -> bool, &'static str);

/// The smallest normal and the largest f32. Kernels compute in f32.
const MIN: f64 = f32::MIN_POSITIVE as f64;
const MAX: f64 = f32::MAX as f64;

pub(crate) const FINITE: Rule = (|x| x.abs() <= MAX, "finite in f32");
pub(crate) const NOT_NEGATIVE: Rule = (|x| (0.0..=MAX).contains(&x), "finite in f32 and not negative");
/// Neither 0 nor subnormal in f32.
pub(crate) const POSITIVE: Rule = (|x| (MIN..=MAX).contains(&x), "finite in f32 and greater than 0");
/// For ε, which is added to √v.
pub(crate) const NORMAL_OR_ZERO: Rule =
    (|x| x == 0.0 || (MIN..=MAX).contains(&x), "0, or finite in f32 and at least 2^-126 (1.2e-38)");
/// For factors that are also divided by.
pub(crate) const INVERTIBLE: Rule = (
    |x| (MIN..=1.0 / MIN).contains(&x),
    "between 2^-126 (1.2e-38) and 2^126 (8.5e37), so that f32 holds its inverse too",
);
/// Neither 0 nor infinite when squared.
pub(crate) const SQUARE_IN_F32: Rule = (|x| (1.1e-19..=1.8e19).contains(&x), "between 1.1e-19 and 1.8e19");
pub(crate) const UNIT: Rule = (|x| (0.0..1.0).contains(&x), "in [0, 1)");
pub(crate) const CLOSED_UNIT: Rule = (|x| (0.0..=1.0).contains(&x), "in [0, 1]");
pub(crate) const OPEN_UNIT: Rule = (|x| x > 0.0 && x < 1.0, "in (0, 1), both ends excluded");
pub(crate) const SHARE: Rule = (|x| x > 0.0 && x <= 1.0, "in (0, 1]");
pub(crate) const AT_LEAST_1: Rule = (|x| x >= 1.0, "at least 1");

/// A number in a message, in scientific notation where it would have many digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-5..1e16).contains(&size) { format!("{value:e}") } else { value.to_string() }
}

/// Refuses decays of moments out of range.
pub(crate) fn check_betas(section: &str, betas: &[f64]) -> Result<()> {
    (0..).zip(betas).try_for_each(|(i, &beta): (usize, _)| check(&format!("{section}.betas[{i}]"), beta, UNIT))
}

/// Refuses an ε out of range, which is added to √v as it is.
pub(crate) fn check_eps(section: &str, eps: f64) -> Result<()> {
    check(&format!("{section}.eps"), eps, NORMAL_OR_ZERO)
}

/// Refuses an ε out of range, which the bias correction multiplies by √(1 − β^t) of the last β. The first step has the smallest.
pub(crate) fn check_eps_corrected(section: &str, eps: f64, betas: &[f64]) -> Result<()> {
    check_eps(section, eps)?;
    let last = betas.len() - 1;
    let first = eps * (1.0 - betas[last]).sqrt();
    if NORMAL_OR_ZERO.0(first) {
        return Ok(());
    }
    let first = number(first);
    let allowed = format!("0, or so large that eps √(1 − betas[{last}]), here {first}, is at least 2^-126 (1.2e-38)");
    Err(Error::Recipe { field: format!("{section}.eps"), value: number(eps), allowed })
}

/// Refuses a `true` that does not go with other fields.
pub(crate) fn ensure_field(section: &str, field: &str, holds: bool, allowed: &str) -> Result<()> {
    let field = format!("{section}.{field}");
    ensure!(holds, Error::Recipe { field, value: "true".to_owned(), allowed: allowed.to_owned() });
    Ok(())
}

/// Refuses a cautious weight decay that is a part of the gradient.
pub(crate) fn check_cautious(section: &str, is_wrong: bool) -> Result<()> {
    ensure_field(section, "cautious_weight_decay", !is_wrong, "false, or a decoupled weight decay")
}

/// For fields that are left out where they are off.
pub(crate) fn is_false(is: &bool) -> bool {
    !is
}

/// Refuses a value that breaks a rule.
pub(crate) fn check(field: &str, value: f64, (allows, allowed): Rule) -> Result<()> {
    if allows(value) {
        return Ok(());
    }
    Err(Error::Recipe { field: field.to_owned(), value: number(value), allowed: allowed.to_owned() })
}
