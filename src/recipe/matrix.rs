//! Matrices: which tensors Matrix bases treat as matrices, and how they multiply them.

/// How a tensor is viewed as a matrix, by matrix bases such as [`Muon`](crate::base::Muon) and by [`Adafactor`](crate::base::Adafactor).
/// Other bases ignore it. Adafactor does not have a fallback: tensors that would go there have one second moment per coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MatrixLayout {
    /// Rank 2 is a matrix of (out, in), as PyTorch's `Linear` stores it. Any other rank goes to the base's fallback. The default.
    #[default]
    OutIn,
    /// Rank 2 is a matrix of (in, out), as Burn's `Linear` stores it. Any other rank goes to the fallback.
    InOut,
    /// Rank 2 or more is a matrix of the first dimension times all others, (out, rest): a convolution, for example.
    Flattened,
    /// Any rank goes to the fallback: for embeddings and output heads.
    Fallback,
}

/// A tensor as a matrix, stored row after row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[doc(hidden)]
pub struct Matrix {
    /// Stored rows.
    pub rows: u64,
    /// Stored columns.
    pub cols: u64,
    /// Whether the rows are the inputs.
    pub inputs_first: bool,
}

impl MatrixLayout {
    /// The matrix for a tensor of this shape; `None` sends it to the fallback.
    pub fn of(self, shape: &[usize]) -> Option<Matrix> {
        let (rows, cols, inputs_first) = match (self, shape) {
            (Self::OutIn, &[out, inputs]) => (out, inputs as u64, false),
            (Self::InOut, &[inputs, out]) => (inputs, out as u64, true),
            (Self::Flattened, &[out, ref rest @ ..]) if !rest.is_empty() => {
                (out, rest.iter().map(|&n| n as u64).product(), false)
            }
            _ => return None,
        };
        Some(Matrix { rows: rows as u64, cols, inputs_first })
    }
}

impl Matrix {
    /// Whether it has more rows than columns. Tall matrices are transposed while they are orthogonalized.
    pub fn is_tall(self) -> bool {
        self.rows > self.cols
    }

    /// The shape while it is orthogonalized.
    pub fn shape(self) -> Shape {
        Shape { m: self.rows.min(self.cols), n: self.rows.max(self.cols) }
    }
}

/// Words of workgroup memory that products take: `tiles` in `shaders/matrix/tiles.wgsl`.
pub(crate) const TILES: u64 = 2 * 2048;

/// The number of large blocks from which they are used: two for each multiprocessor of a large GPU.
const MANY: u64 = 256;

/// The fewest rows of a [wide](Shape::is_wide) shape.
const WIDE: u64 = 64;

/// m × n with m ≤ n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[doc(hidden)]
pub struct Shape {
    /// Rows.
    pub m: u64,
    /// Columns.
    pub n: u64,
}

/// Extra vectors of four per row, so that rows do not all fall into the same cache lines.
const SKEW: u64 = 4;

impl Shape {
    /// Whether it is wide enough to iterate on X Xᵀ and to multiply X by the product of the polynomials. In five steps this takes
    /// 14 m³ + 6 m² n operations instead of 5 m³ + 15 m² n. Small shapes have too little work for the additional dispatches.
    pub fn is_wide(self) -> bool {
        self.n >= 2 * self.m && self.m >= WIDE
    }

    /// Stride between rows of X, in vectors of four.
    pub fn stride(self) -> u64 {
        skewed(self.n.div_ceil(4))
    }

    /// Stride between rows of X Xᵀ, in vectors of four.
    pub fn gram_stride(self) -> u64 {
        skewed(self.m.div_ceil(4))
    }

    /// Size of X Xᵀ in vectors of four. Zeros pad the rows to a multiple of four.
    pub fn gram_slot(self) -> u64 {
        self.m.next_multiple_of(4) * self.gram_stride()
    }

    /// Size of X in vectors of four. Zeros pad the rows to a multiple of four. X Xᵀ fits into it too.
    pub fn slot(self) -> u64 {
        (self.m.next_multiple_of(4) * self.stride()).max(self.gram_slot())
    }
}

fn skewed(vectors: u64) -> u64 {
    if vectors.is_multiple_of(64) { vectors + SKEW } else { vectors }
}

/// How the products of Newton–Schulz are computed. The ways differ in rounding only, except [`TilesF16`](Self::TilesF16).
///
/// [`adapter::matmul`](crate::adapter::matmul) chooses one for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Matmul {
    /// Each invocation holds a block of the product in registers and reads its factors from memory. For adapters that are CPUs.
    Registers,
    /// As `Registers`, and the invocations of a subgroup share what they read. For adapters that are CPUs. Needs the feature `SUBGROUP`
    /// and subgroups of 8.
    Subgroups,
    /// Each workgroup stages tiles of the factors in workgroup memory: for GPUs. `LargeTiles` for products that have at least 256 of their
    /// blocks, counted over all matrices of the shape, and fill them to about four fifths; `SmallTiles` for others.
    Tiles,
    /// A workgroup has a block of 64 × 64 of a product. Its four parts share the sum over the rows or columns.
    SmallTiles,
    /// A workgroup has a block of 128 × 128 of a product.
    LargeTiles,
    /// As `LargeTiles`, staged as f16. Sums are f32. Needs the feature `SHADER_F16`. Never chosen automatically: after Muon's five steps,
    /// singular values were off by up to 1.1 %.
    TilesF16,
}

impl Matmul {
    /// All ways.
    pub const ALL: [Self; 6] =
        [Self::Registers, Self::Subgroups, Self::Tiles, Self::SmallTiles, Self::LargeTiles, Self::TilesF16];

    /// The way of so many m × n products, or of the lower halves of so many m × m products.
    pub(crate) fn chosen(self, shape: Shape, is_gram: bool, matrices: u64) -> Self {
        let [small, large] = [Self::SmallTiles, Self::LargeTiles].map(|way| way.workgroups(shape, is_gram));
        match self {
            // Large blocks may compute a quarter more where they extend beyond the product.
            Self::Tiles if matrices * large >= MANY && 4 * large <= small + small / 4 => Self::LargeTiles,
            Self::Tiles => Self::SmallTiles,
            other => other,
        }
    }

    /// Rows and columns of a block.
    pub(crate) fn block(self) -> u64 {
        match self {
            Self::Registers => 16,
            Self::Subgroups | Self::Tiles | Self::SmallTiles => 64,
            Self::LargeTiles | Self::TilesF16 => 128,
        }
    }

    /// Workgroups for an m × n product, or for the lower half of an m × m product.
    pub(crate) fn workgroups(self, shape: Shape, is_gram: bool) -> u64 {
        let [down, across] = [shape.m, shape.n].map(|size| size.div_ceil(self.block()));
        let blocks = if is_gram { down * (down + 1) / 2 } else { down * across };
        match self {
            Self::Registers => blocks.div_ceil(8),
            Self::Subgroups => 2 * blocks,
            _ => blocks,
        }
    }
}
