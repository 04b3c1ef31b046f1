//! Matrices: which tensors a matrix base takes as such, and where they lie while they are orthogonalised.

/// What a matrix base (Muon, AdaGO) sees in a tensor. Other bases do not look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatrixLayout {
    /// Rank 2 is a matrix of (out, in), as PyTorch's `Linear` stores it. Any other rank is none, and goes to the base's
    /// fallback. The default.
    #[default]
    OutIn,
    /// Rank 2 is a matrix of (in, out), as Burn's `Linear` stores it. Any other rank goes to the fallback.
    InOut,
    /// Rank 2 or more is a matrix of the first dimension times all others, (out, rest): a convolution, for example.
    Flattened,
    /// No matrix, whatever its rank: embeddings and output heads.
    Fallback,
}

/// A tensor as a matrix, row after row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Matrix {
    /// Rows as they are stored.
    pub rows: u64,
    /// Columns as they are stored.
    pub cols: u64,
    /// Whether the rows are the inputs.
    pub inputs_first: bool,
}

impl MatrixLayout {
    /// The matrix that a tensor of this shape is, if it is one.
    pub fn of(self, shape: &[usize]) -> Option<Matrix> {
        let matrix = |rows: usize, cols: u64, inputs_first| Matrix { rows: rows as u64, cols, inputs_first };
        match (self, shape) {
            (Self::OutIn, &[out, inputs]) => Some(matrix(out, inputs as u64, false)),
            (Self::InOut, &[inputs, out]) => Some(matrix(inputs, out as u64, true)),
            (Self::Flattened, &[out, ref rest @ ..]) if !rest.is_empty() => {
                Some(matrix(out, rest.iter().map(|&n| n as u64).product(), false))
            }
            _ => None,
        }
    }
}

impl Matrix {
    /// (out, in).
    pub fn out_in(self) -> (u64, u64) {
        if self.inputs_first { (self.cols, self.rows) } else { (self.rows, self.cols) }
    }

    /// Whether it has more rows than columns, and is transposed while it is orthogonalised.
    pub fn is_tall(self) -> bool {
        self.rows > self.cols
    }

    /// Its shape while it is orthogonalised.
    pub fn shape(self) -> Shape {
        Shape { m: self.rows.min(self.cols), n: self.rows.max(self.cols) }
    }
}

/// Words of a tile in workgroup memory: `down_tile` and `across_tile` in `shaders/matrix/tiles.wgsl`.
pub(crate) const TILE: u64 = 64 * 16;

/// The fewest rows of a [wide](Shape::is_wide) shape.
const WIDE: u64 = 64;

/// m × n with m ≤ n.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// Rows.
    pub m: u64,
    /// Columns.
    pub n: u64,
}

/// Vectors of four to which a row is padded beyond its own, so that rows do not all fall into the same lines of a cache.
const SKEW: u64 = 4;

impl Shape {
    /// Whether it is so wide that iterating on X Xᵀ, and multiplying X with the product of the polynomials, takes fewer
    /// operations: (14 m³ + 6 m² n) against (5 m³ + 15 m² n) in five steps. Small ones have too little work for the
    /// dispatches that it takes more.
    pub fn is_wide(self) -> bool {
        self.n >= 2 * self.m && self.m >= WIDE
    }

    /// Vectors of four from one row of X to the next.
    pub fn stride(self) -> u64 {
        skewed(self.n.div_ceil(4))
    }

    /// Vectors of four from one row of X Xᵀ to the next.
    pub fn gram_stride(self) -> u64 {
        skewed(self.m.div_ceil(4))
    }

    /// Vectors of four of an X Xᵀ, its rows padded to a multiple of four with zeros.
    pub fn gram_slot(self) -> u64 {
        self.m.next_multiple_of(4) * self.gram_stride()
    }

    /// Vectors of four of an X, its rows padded to a multiple of four with zeros; an X Xᵀ has room in it too.
    pub fn slot(self) -> u64 {
        (self.m.next_multiple_of(4) * self.stride()).max(self.gram_slot())
    }
}

/// Blocks on and below the diagonal.
pub(crate) fn triangle(down: u64) -> u64 {
    down * (down + 1) / 2
}

fn skewed(vectors: u64) -> u64 {
    if vectors.is_multiple_of(64) { vectors + SKEW } else { vectors }
}

/// How the products of Newton–Schulz are computed. Results differ in rounding only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Matmul {
    /// Each invocation holds a block of the product in registers and reads its factors from memory: for adapters that are
    /// CPUs.
    Registers,
    /// The same, and the invocations of a subgroup share what they read: for adapters that are CPUs, where the device has the
    /// feature `SUBGROUP` and subgroups of 8.
    Subgroups,
    /// Each workgroup stages tiles of the factors in workgroup memory: for GPUs.
    Tiles,
    /// The same, and stages them as f16, where the device has the feature `SHADER_F16`; sums are f32. Never chosen by
    /// itself: after Muon's five steps singular values were off by up to 1.1 %.
    TilesF16,
}

impl Matmul {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Registers, Self::Subgroups, Self::Tiles, Self::TilesF16];

    /// What suits a device.
    pub fn of(device: &wgpu::Device) -> Self {
        match device.adapter_info().device_type {
            wgpu::DeviceType::Cpu if Self::Subgroups.is_supported(device) => Self::Subgroups,
            wgpu::DeviceType::Cpu => Self::Registers,
            _ => Self::Tiles,
        }
    }

    /// Whether a device can compute in this way.
    pub fn is_supported(self, device: &wgpu::Device) -> bool {
        let info = device.adapter_info();
        let has = |feature| device.features().contains(feature);
        match self {
            Self::Registers | Self::Tiles => true,
            Self::Subgroups => {
                has(wgpu::Features::SUBGROUP) && info.subgroup_min_size == 8 && info.subgroup_max_size == 8
            }
            Self::TilesF16 => has(wgpu::Features::SHADER_F16),
        }
    }

    /// Workgroups for the lower half of an m × m product.
    pub(crate) fn gram_workgroups(self, shape: Shape) -> u64 {
        match self {
            Self::Registers => triangle(shape.m.div_ceil(16)).div_ceil(8),
            Self::Subgroups => 2 * triangle(shape.m.div_ceil(64)),
            Self::Tiles | Self::TilesF16 => triangle(shape.m.div_ceil(64)),
        }
    }

    /// Workgroups for an m × n product.
    pub(crate) fn advance_workgroups(self, shape: Shape) -> u64 {
        let blocks = |rows, columns| shape.m.div_ceil(rows) * shape.n.div_ceil(columns);
        match self {
            Self::Registers => blocks(16, 16).div_ceil(8),
            Self::Subgroups => blocks(32, 64),
            Self::Tiles | Self::TilesF16 => blocks(64, 64),
        }
    }
}
