//! Newton–Schulz: how matrix bases orthogonalize a direction.

use crate::recipe::matrix::Matrix;
use crate::recipe::prelude::*;

/// How a matrix base orthogonalizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewtonSchulz {
    /// Iterations.
    pub steps: u32,
    /// (a, b, c).
    pub coefficients: [f64; 3],
}

/// The quintic coefficients of Jordan et al.
pub(super) const QUINTIC: [f64; 3] = [3.4445, -4.7750, 2.0315];

/// Orthogonalizes a matrix: X = d / (‖d‖_F + 1e-7), transposed if it is tall, then X ← a X + (b A + c A²) X with
/// A = X Xᵀ, transposed back.
///
/// # Panics
/// If `d` has another length than the matrix.
pub fn newton_schulz<T: Float>(d: &[T], matrix: Matrix, ns: NewtonSchulz) -> Vec<T> {
    let (rows, cols) = (matrix.rows as usize, matrix.cols as usize);
    assert_eq!(d.len(), rows * cols, "a direction has the shape of its matrix");
    let (mut x, mut norm) = (d.to_vec(), grad_norm([d]) + real(1e-7));
    if !norm.is_finite() {
        // The square is beyond the range: that of a smaller one is not.
        x.iter_mut().for_each(|x| *x = *x * real(2f64.powi(-96)));
        norm = grad_norm([&x[..]]);
    }
    let inverse = T::one() / norm;
    x.iter_mut().for_each(|x| *x = *x * inverse);
    let tall = matrix.is_tall();
    let (m, n) = if tall { (cols, rows) } else { (rows, cols) };
    if tall {
        x = transposed(&x, rows, cols);
    }
    let [a, b, c] = ns.coefficients.map(real::<T>);
    for _ in 0..ns.steps {
        let gram = product(&x, &transposed(&x, m, n), m, n, m);
        let square = product(&gram, &gram, m, m, m);
        let polynomial: Vec<T> = gram.iter().zip(&square).map(|(&g, &s)| b * g + c * s).collect();
        let moved = product(&polynomial, &x, m, m, n);
        x = x.iter().zip(&moved).map(|(&x, &p)| a * x + p).collect();
    }
    if tall { transposed(&x, m, n) } else { x }
}

fn transposed<T: Float>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])).collect()
}

/// The product of an m × k and a k × n matrix.
fn product<T: Float>(left: &[T], right: &[T], m: usize, k: usize, n: usize) -> Vec<T> {
    let mut result = vec![T::zero(); m * n];
    for (row, out) in left.chunks_exact(k).zip(result.chunks_exact_mut(n)) {
        for (&l, right) in row.iter().zip(right.chunks_exact(n)) {
            out.iter_mut().zip(right).for_each(|(sum, &r)| *sum = *sum + l * r);
        }
    }
    result
}
