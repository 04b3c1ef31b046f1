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

/// The largest |g| whose square f32 holds.
const LARGEST: f64 = 1.84e19;

/// The same if `T` is f32.
fn largest<T: Float>() -> Option<T> {
    T::from(LARGEST).filter(|_| T::max_value() <= real(f32::MAX.into()))
}

/// The gradient as second moments take it: at most the largest whose square f32 holds.
pub(crate) fn within_squares<T: Float>(g: T) -> T {
    largest().filter(|&largest| g.abs() > largest).map_or(g, |largest| largest.copysign(g))
}

/// The sum of squares with one more, at most the square of the largest. So a second moment stays finite and decays again.
pub(crate) fn add_square<T: Float>(sum: T, g: T) -> T {
    let square = within_squares(g).powi(2);
    largest().map_or(sum, |largest: T| sum.min(largest * largest - square)) + square
}

/// ‖g‖₂ of one tensor, at most the largest number whose square f32 holds.
pub(crate) fn counted_norm<T: Float>(g: &[T]) -> T {
    grad_norm([g]).min(real(LARGEST))
}

/// v ← β v + (1−β) g².
pub(crate) fn second_moment<T: Float>(v: &mut T, (beta, rest): (T, T), g: T) {
    *v = beta * *v + rest * (g * g);
}

/// ‖g‖₂ over all gradients of a step.
pub fn grad_norm<'a, T: Float + 'a>(grads: impl IntoIterator<Item = &'a [T]>) -> T {
    let squares = grads.into_iter().flatten().fold(T::zero(), |sum, &g| sum + g * g);
    squares.sqrt()
}
