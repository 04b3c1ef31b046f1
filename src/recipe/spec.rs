//! What a caller says about a tensor.

use std::collections::HashMap;

use super::matrix::{Matrix, MatrixLayout};
use super::prelude::*;

/// Coordinates of a chunk, the work of one workgroup.
#[doc(hidden)]
pub const CHUNK: u64 = 4096;
/// Largest number of coordinates of all tensors.
const MOST: u64 = 1 << 36;

/// A tensor to optimize: its name, shape and parameter group.
///
/// ```
/// use wgpu_optim::{MatrixLayout, TensorSpec};
///
/// let weight = TensorSpec::new("weight", [256, 64]).in_group(1);
/// assert_eq!((weight.numel(), weight.matrix().is_some()), (16_384, true));
/// let embedding = TensorSpec::new("embedding", [50_000, 64]).with_layout(MatrixLayout::Fallback);
/// assert!(embedding.matrix().is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TensorSpec {
    /// Unique and not empty.
    pub name: String,
    /// Sizes of the dimensions, none of them 0. An empty shape is a scalar.
    pub shape: Vec<usize>,
    /// Index of the parameter group. Default 0.
    #[serde(default)]
    pub group: usize,
    /// How matrix bases view it as a matrix. Default: as a matrix of (out, in) if it has rank 2.
    #[serde(default)]
    pub layout: MatrixLayout,
    /// Number of components, each with its own factor of the learning rate. Coordinate i belongs to component i modulo this number, so
    /// the columns of a matrix can be components. Default 0: none.
    #[serde(default)]
    pub components: usize,
}

impl TensorSpec {
    /// A tensor of group 0.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), group: 0, layout: MatrixLayout::default(), components: 0 }
    }

    /// Number of coordinates, d. It saturates at 2⁶⁴ − 1, for shapes that no optimizer takes.
    pub fn numel(&self) -> u64 {
        self.shape.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64))
    }

    /// The same tensor in another group.
    #[must_use]
    pub fn in_group(self, group: usize) -> Self {
        Self { group, ..self }
    }

    /// The same tensor with another view for matrix bases.
    #[must_use]
    pub fn with_layout(self, layout: MatrixLayout) -> Self {
        Self { layout, ..self }
    }

    /// The same tensor with a factor of the learning rate for each of this many components: a divisor of the number of coordinates, such
    /// as the last size of the shape. All tensors together have at most 4,032, each rounded up to a multiple of 64. The factors are 1 at
    /// first; see [`GpuOptimizer::write_rates`](crate::GpuOptimizer::write_rates).
    #[must_use]
    pub fn with_components(self, components: usize) -> Self {
        Self { components, ..self }
    }

    /// A number that follows from the name: FNV-1a in 32 bits. It makes the random bits of this tensor differ from those of others, wherever
    /// it stands among them.
    ///
    /// ```
    /// use wgpu_optim::TensorSpec;
    ///
    /// assert_eq!(TensorSpec::new("a", [1]).identity(), 0xe40c_292c);
    /// ```
    pub fn identity(&self) -> u32 {
        self.name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The matrix that matrix bases see in it; `None` sends it to their fallback.
    pub fn matrix(&self) -> Option<Matrix> {
        self.layout.of(&self.shape)
    }
}

/// Refuses specs out of range, for so many groups. Returns the index of each name.
pub(super) fn validate(specs: &[TensorSpec], groups: usize) -> Result<HashMap<String, usize>> {
    ensure!(!specs.is_empty(), Error::Empty { what: "tensor" });
    let mut names = HashMap::new();
    for (i, spec) in specs.iter().enumerate() {
        let TensorSpec { name, shape, group, components, .. } = spec;
        let refusal = |reason| Error::Tensor { tensor: name.clone(), reason };
        ensure!(!name.is_empty(), refusal(format!("tensor {i} has an empty name")));
        if let Some(first) = names.insert(name.clone(), i) {
            return Err(refusal(format!("tensors {first} and {i} have the same name")));
        }
        ensure!(!shape.contains(&0), refusal(format!("shape {shape:?} holds nothing; leave the tensor out")));
        let numel = spec.numel();
        let fits = numel <= u64::from(u32::MAX) - CHUNK;
        ensure!(fits, refusal(format!("shape {shape:?} has more than 2^32 - 4097 coordinates; split the tensor")));
        let divides = *components == 0 || numel.is_multiple_of(*components as u64);
        let reason = || format!("{components} components do not divide the coordinates of shape {shape:?}");
        ensure!(divides, refusal(reason()));
        ensure!(*group < groups, refusal(format!("parameter group {group} does not exist; there are {groups}")));
    }
    // Before anything is laid out, which takes memory.
    let all: u64 = specs.iter().map(TensorSpec::numel).sum();
    ensure!(all <= MOST, Error::TooMany { what: "coordinates", given: all, most: MOST });
    Ok(names)
}
