//! Helpers of the CPU twins, which compute in f32 or f64.

use num_traits::Float;

/// A hyper-parameter, rounded to `T`.
pub(crate) fn real<T: Float>(x: f64) -> T {
    T::from(x).expect("f32 and f64 hold every hyper-parameter, rounded")
}

/// The score, or 0 where |s| < 2⁻¹²⁶.
pub(crate) fn flushed<T: Float>(s: T) -> T {
    if s.abs() < real(f64::from(f32::MIN_POSITIVE)) { T::zero() } else { s }
}

/// 1, 0 or −1; 0 for NaN.
pub(crate) fn sign<T: Float>(s: T) -> T {
    let s = flushed(s);
    if s.is_nan() || s.is_zero() { T::zero() } else { s.signum() }
}

/// ‖g‖₂ over all gradients of a step.
pub fn grad_norm<'a, T: Float + 'a>(grads: impl IntoIterator<Item = &'a [T]>) -> T {
    let squares = grads.into_iter().flatten().fold(T::zero(), |sum, &g| sum + g * g);
    squares.sqrt()
}
