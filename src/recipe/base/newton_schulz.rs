//! Newton–Schulz: how matrix bases orthogonalize a direction.

use crate::recipe::matrix::Matrix;
use serde::{Deserializer, Serializer};

use crate::recipe::prelude::*;

/// How a matrix base orthogonalizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewtonSchulz {
    /// Iterations.
    pub steps: u32,
    /// The polynomial of each iteration.
    pub coefficients: NsCoefficients,
}

/// Iterations that may have coefficients of their own.
pub const NS_LIST: usize = 6;

/// Coefficients (a, b, c) of the Newton–Schulz iterations X ← a X + (b A + c A²) X with A = X Xᵀ: one triple for all iterations, or a list
/// of up to 6, the last of which repeats.
///
/// In JSON: a triple, a list of triples, or the name `"quintic"`, `"polar_express"` or `"polar_express_4"`.
///
/// ```
/// use wgpu_optim::base::{Muon, NsCoefficients};
///
/// let convergent = Muon::new(0.02).ns_coefficients([2.0, -1.5, 0.5]).ns_steps(20);
/// let polar = Muon::new(0.02).ns_coefficients(NsCoefficients::POLAR_EXPRESS);
/// assert_eq!(polar.ns_coefficients.of(0)[0], 8.28721201814563 / 1.01);
/// let faster = Muon::new(0.02).ns_coefficients(NsCoefficients::POLAR_EXPRESS_4).ns_steps(4);
/// assert!(NsCoefficients::list(&[]).is_none());
/// # assert!(convergent != polar && polar != faster);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NsCoefficients {
    /// The last one repeats to the end.
    triples: [[f64; 3]; NS_LIST],
    len: usize,
}

impl NsCoefficients {
    /// (3.4445, −4.775, 2.0315) for all iterations (Jordan et al., 2024). Brings singular values near 1 in five steps, but does not converge.
    pub const QUINTIC: Self = Self { triples: [[3.4445, -4.7750, 2.0315]; NS_LIST], len: 1 };

    /// The polynomials of Polar Express (Amsel et al., 2025, 2505.16932), optimal one after the other for singular values from 10⁻³ to 1,
    /// with the authors' safety factor of 1.01.
    pub const POLAR_EXPRESS: Self = Self {
        triples: [
            safe([8.28721201814563, -23.595886519098837, 17.300387312530933]),
            safe([4.107059111542203, -2.9478499167379106, 0.5448431082926601]),
            safe([3.9486908534822946, -2.908902115962949, 0.5518191394370137]),
            safe([3.3184196573706015, -2.488488024314874, 0.51004894012372]),
            safe([2.300652019954817, -1.6689039845747493, 0.4188073119525673]),
            safe([1.891301407787398, -1.2679958271945868, 0.37680408948524835]),
        ],
        len: NS_LIST,
    };

    /// For `ns_steps` of 4, which is faster than 5: the same method for singular values from 2.2·10⁻³ to 1, which come as near to 1 as
    /// [`QUINTIC`](Self::QUINTIC) brings them in five steps. `QUINTIC` does so from 1.5·10⁻³. The safety factor is not in the last
    /// polynomial.
    pub const POLAR_EXPRESS_4: Self = {
        let last = [2.7110726244107446, -2.0177541261167473, 0.4571286546367796];
        let triples = [
            safe([8.418130999327065, -24.901952124777274, 18.465301502406724]),
            safe([4.097770451781494, -3.0494400259123204, 0.5738486734379218]),
            safe([3.6699717383343504, -2.746030772530957, 0.5392877146044798]),
            last,
            last,
            last,
        ];
        Self { triples, len: 4 }
    };

    /// A list of 1 to 6 triples; `None` for another number.
    pub fn list(triples: &[[f64; 3]]) -> Option<Self> {
        let (&last, len) = (triples.last()?, triples.len());
        (len <= NS_LIST).then(|| Self { triples: std::array::from_fn(|i| *triples.get(i).unwrap_or(&last)), len })
    }

    /// The triple of an iteration, counted from 0.
    pub fn of(&self, iteration: usize) -> [f64; 3] {
        self.triples[iteration.min(NS_LIST - 1)]
    }

    /// The triples, without repetition.
    pub fn triples(&self) -> &[[f64; 3]] {
        &self.triples[..self.len]
    }
}

/// The polynomial of x / 1.01, so that rounding takes no singular value beyond the interval.
const fn safe([a, b, c]: [f64; 3]) -> [f64; 3] {
    let factor = 1.01;
    let cube = factor * factor * factor;
    [a / factor, b / cube, c / (cube * factor * factor)]
}

impl Default for NsCoefficients {
    fn default() -> Self {
        Self::QUINTIC
    }
}

impl From<[f64; 3]> for NsCoefficients {
    fn from(triple: [f64; 3]) -> Self {
        Self { triples: [triple; NS_LIST], len: 1 }
    }
}

/// The forms in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Triple([f64; 3]),
    List(Vec<[f64; 3]>),
    Name(String),
}

impl Serialize for NsCoefficients {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let form = match self.triples() {
            _ if *self == Self::POLAR_EXPRESS => Form::Name("polar_express".to_owned()),
            _ if *self == Self::POLAR_EXPRESS_4 => Form::Name("polar_express_4".to_owned()),
            [triple] => Form::Triple(*triple),
            list => Form::List(list.to_vec()),
        };
        form.serialize(to)
    }
}

impl<'de> Deserialize<'de> for NsCoefficients {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || {
            let names = "`quintic`, `polar_express` or `polar_express_4`";
            serde::de::Error::custom(format!("expected [a, b, c], a list of 1 to 6 of these, {names}"))
        };
        match Form::deserialize(from).map_err(|_| wrong())? {
            Form::Triple(triple) => Ok(triple.into()),
            Form::List(list) => Self::list(&list).ok_or_else(wrong),
            Form::Name(name) if name == "quintic" => Ok(Self::QUINTIC),
            Form::Name(name) if name == "polar_express" => Ok(Self::POLAR_EXPRESS),
            Form::Name(name) if name == "polar_express_4" => Ok(Self::POLAR_EXPRESS_4),
            Form::Name(_) => Err(wrong()),
        }
    }
}

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
    for iteration in 0..ns.steps as usize {
        let [a, b, c] = ns.coefficients.of(iteration).map(real::<T>);
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
