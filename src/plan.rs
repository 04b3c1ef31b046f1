//! Where everything lies: tensors → chunks → pages. Knows no wgpu.
//!
//! Tensors of one kind of recipe (a [`Class`]) lie side by side in arenas. A *page* is a range of an arena that fits
//! into one binding; a *chunk* is up to 4,096 consecutive coordinates of one tensor, the work of one workgroup. A
//! dispatch covers all chunks of a page, or all tensors of a class, so their number does not grow with the number of
//! tensors.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::base::{AdamW, Base, SecondMoment};
use crate::error::{Error, Missing};
use crate::groups::ParamGroups;
use crate::guard::Gradients;
use crate::matrix::{Matrix, MatrixLayout, Shape};
use crate::policy::{Policy, Selection};
use crate::precision::Precision;
use crate::recipe::Recipe;
use crate::sampling::{CANDIDATE, Sampling};

/// Coordinates of a chunk.
pub const CHUNK: u64 = 4096;
/// Invocations of a workgroup; `WORKGROUP` in `shaders/lib/tables.wgsl`.
pub const WORKGROUP: u64 = 256;
/// Parameter groups whose scalars one dispatch can tell apart; the length of `rows` in `shaders/lib/tables.wgsl`.
pub const ROWS: usize = 64;
/// Bins of a histogram; `BINS` in `shaders/lib/tables.wgsl`.
pub const BINS: u64 = 2048;
/// Tensors begin at multiples of this many coordinates, so that each can be bound alone, in two bytes too.
const ALIGNMENT: u64 = 128;
/// Coordinates of a tensor that one workgroup steps under `mgup`, selection included.
pub const SMALL: u64 = CHUNK;
/// Factors of learning rates, at most; the length of `rates` in `shaders/lib/rates_on.wgsl`, in vectors of four.
pub const RATES: u64 = 4096;
/// Each tensor's begin at a multiple of this, so that they can be bound alone.
const RATES_ALIGNMENT: u64 = 64;
/// Matrices of a page, at most: a dimension of a dispatch.
const MATRICES: u64 = 65_535;
/// Bytes of a page, at most: kernels count its words in 32 bits, and some drivers its bytes.
pub(crate) const PAGE: u64 = 1 << 31;
/// Coordinates of all tensors.
const MOST: u64 = 1 << 36;

/// A tensor to optimize: its name, shape and parameter group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Unique and not empty.
    pub name: String,
    /// Sizes of the dimensions, none of them 0. An empty shape is a scalar.
    pub shape: Vec<usize>,
    /// Index of the parameter group. Default 0.
    pub group: usize,
    /// What Muon and AdaGO see in it. Default a matrix of (out, in) if it has rank 2.
    pub layout: MatrixLayout,
    /// Components that have a factor of the learning rate each, as the columns of a row have: coordinate i has the factor i modulo
    /// this. Default 0: none.
    #[serde(default)]
    pub components: usize,
}

impl TensorSpec {
    /// A tensor of group 0.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self {
            name: name.into(),
            shape: shape.into(),
            group: 0,
            layout: MatrixLayout::default(),
            components: 0,
        }
    }

    /// Coordinates, d; at most 2⁶⁴ − 1, for a shape that no optimizer takes.
    pub fn numel(&self) -> u64 {
        self.shape.iter().fold(1u64, |n, &size| n.saturating_mul(size as u64))
    }

    /// The same tensor in another group.
    pub fn in_group(self, group: usize) -> Self {
        Self { group, ..self }
    }

    /// The same tensor as Muon and AdaGO are to see it.
    pub fn with_layout(self, layout: MatrixLayout) -> Self {
        Self { layout, ..self }
    }

    /// The same tensor with learning rates for so many components: a divisor of the coordinates, as the last of its sizes is. Their
    /// factors are 1 at first; see [`GpuOptimizer::write_rates`](crate::GpuOptimizer::write_rates).
    pub fn with_components(self, components: usize) -> Self {
        Self { components, ..self }
    }

    /// The matrix that it is to Muon and AdaGO; `None` sends it to their fallback.
    pub fn matrix(&self) -> Option<Matrix> {
        self.layout.of(&self.shape)
    }
}

/// Who holds what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// The optimizer holds everything, in arenas.
    Arenas,
    /// The caller gives parameters and gradients each step; the optimizer holds the state.
    Caller,
    /// The caller gives the state as well.
    Stateless,
}

/// The limits of a device that shape a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// Largest range of a buffer that can be bound, in bytes.
    pub binding: u64,
    /// Largest buffer, in bytes.
    pub buffer: u64,
}

/// The kind of kernels that a recipe needs; hyper-parameters do not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BaseKind {
    /// See [`Base::Adamw`].
    Adamw,
    /// See [`SecondMoment::Row`].
    AdamwRows,
    /// See [`Base::Lion`].
    Lion,
    /// See [`Base::Muon`].
    Muon,
    /// See [`Base::Adago`].
    Adago,
}

/// The kind of update policy; hyper-parameters do not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// See [`Policy::Plain`].
    Plain,
    /// See [`Policy::Cautious`].
    Cautious,
    /// See [`Policy::Mgup`], exact.
    Mgup,
    /// See [`Policy::Mgup`], approximate.
    MgupApproximate,
    /// See [`Policy::Mgup`], for tensors of at most [`SMALL`] coordinates: exact.
    MgupSmall,
    /// See [`Policy::CautiousMgup`].
    CautiousMgup,
    /// See [`Policy::Grams`].
    Grams,
}

impl BaseKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Adamw, Self::AdamwRows, Self::Lion, Self::Muon, Self::Adago];

    /// The kind of a base.
    pub fn of(base: &Base) -> Self {
        match base {
            Base::Adamw(AdamW { second_moment: SecondMoment::Row, .. }) => Self::AdamwRows,
            Base::Adamw(_) => Self::Adamw,
            Base::Lion(_) => Self::Lion,
            Base::Muon(_) => Self::Muon,
            Base::Adago(_) => Self::Adago,
        }
    }

    /// Whether it orthogonalises matrices.
    pub fn is_matrix(self) -> bool {
        matches!(self, Self::Muon | Self::Adago)
    }

    /// Names of the per-coordinate state, as PyTorch calls them.
    pub fn state_names(self) -> &'static [&'static str] {
        match self {
            Self::Adamw | Self::AdamwRows => &["exp_avg", "exp_avg_sq"],
            Self::Lion => &["exp_avg"],
            Self::Muon | Self::Adago => &["momentum_buffer"],
        }
    }

    /// Names of the state that is one number for a tensor.
    pub fn scalar_names(self) -> &'static [&'static str] {
        match self {
            Self::Adago => &["accumulator"],
            Self::Adamw | Self::AdamwRows | Self::Lion | Self::Muon => &[],
        }
    }

    /// How many words of state a coordinate has.
    pub fn states(self) -> u64 {
        self.state_names().len() as u64 - u64::from(self == Self::AdamwRows)
    }

    /// Whether the state of this index is one number for a row.
    pub(crate) fn is_of_rows(self, state: usize) -> bool {
        self == Self::AdamwRows && state == 1
    }
}

impl PolicyKind {
    /// The kind of a policy, for a tensor of `numel` coordinates.
    pub fn of(policy: &Policy, numel: u64) -> Self {
        match policy {
            Policy::Plain(_) => Self::Plain,
            Policy::Cautious(_) => Self::Cautious,
            Policy::Mgup(_) if numel <= SMALL => Self::MgupSmall,
            Policy::Mgup(m) => match m.selection {
                Selection::Exact => Self::Mgup,
                Selection::Approximate => Self::MgupApproximate,
            },
            Policy::CautiousMgup(_) => Self::CautiousMgup,
            Policy::Grams(_) => Self::Grams,
        }
    }

    /// Whether it selects with the help of a sample.
    pub fn samples(self) -> bool {
        self.bounds() > 0
    }

    /// Cuts that it takes from the sample.
    pub(crate) fn bounds(self) -> u64 {
        match self {
            Self::Mgup => 2,
            Self::MgupApproximate => 1,
            _ => 0,
        }
    }

    /// Bits a coordinate that its kernels hand to each other within a step.
    pub fn bits(self, base: BaseKind) -> u64 {
        match self {
            Self::Mgup => 2,     // what the stream decided
            Self::Cautious => 1, // whether the score is positive
            // Whether φ = α, from before the orthogonalisation to behind it.
            Self::MgupApproximate | Self::MgupSmall | Self::CautiousMgup => u64::from(base.is_matrix()),
            Self::Plain | Self::Grams => 0,
        }
    }

    /// Bytes of a chunk's bits.
    pub(crate) fn bits_bytes(self, base: BaseKind) -> u64 {
        self.bits(base) * CHUNK / 8
    }
}

/// A tensor's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// What the caller said.
    pub spec: TensorSpec,
    /// Coordinates, d.
    pub numel: u64,
    /// K of `mgup`; 0 under other policies.
    pub k: u64,
    /// Its row of step scalars.
    pub(crate) row: usize,
    /// Its arena block.
    pub block: usize,
    /// First coordinate's place in the block.
    pub offset: u64,
    /// Its chunks.
    pub chunks: Range<u32>,
    /// Its pages.
    pub pages: Range<usize>,
    /// How it is sampled, if it is.
    pub sampling: Option<Sampling>,
    /// Coordinates of a row.
    pub row_len: u64,
    /// Where the moments of its rows begin in its block's, if they have any.
    pub(crate) rows: u64,
    /// Where the factors of its components begin.
    pub(crate) rates: u32,
}

impl Tensor {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        4 * self.numel
    }

    /// Rows: what its first dimension counts.
    pub fn row_count(&self) -> u64 {
        self.numel / self.row_len
    }
}

/// Matrices of one shape, which are orthogonalised side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Matrices {
    /// m × n, m ≤ n.
    pub shape: Shape,
    /// Newton–Schulz iterations.
    pub steps: u32,
}

/// Tensors whose recipes need the same kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Kind of base.
    pub base: BaseKind,
    /// Kind of policy.
    pub policy: PolicyKind,
    /// Of a matrix base.
    pub matrices: Option<Matrices>,
    /// First parameter group that its rows hold.
    pub first_row: usize,
    /// Its tensors.
    pub tensors: Range<usize>,
    /// Its pages.
    pub pages: Range<usize>,
}

/// A stretch of the arenas, for the tensors of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its class.
    pub class: usize,
    /// Coordinates, padding included.
    pub len: u64,
    /// Rows that have a moment of their own, padding included.
    pub rows: u64,
}

/// A range of an arena block that fits into one binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its class.
    pub class: usize,
    /// Its arena block.
    pub block: usize,
    /// First coordinate's place in the block.
    pub offset: u64,
    /// Coordinates, padding included.
    pub len: u64,
    /// Coordinates without padding.
    pub numel: u64,
    /// Its chunks.
    pub chunks: Range<u32>,
    /// The pieces of its sampled tensors, each as often as workgroups share it.
    pub pieces: Range<u32>,
    /// Its tensors, a chunk each, if they are matrices.
    pub matrices: Range<u32>,
    /// Tensors that have a chunk here.
    pub tensors: Range<usize>,
    /// Its bits: scratch block, offset in bytes, size in bytes (0 for none).
    pub scratch: (usize, u64, u64),
}

/// Consecutive coordinates of one tensor, as the kernels read them: a chunk, or a piece, which is all of a tensor that
/// lies in a page, or a matrix, which is all of a tensor. Places count coordinates and are multiples of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, encase::ShaderType)]
pub struct Chunk {
    /// First coordinate's place in the page: in the bindings of the state and of the scratch.
    pub offset: u32,
    /// Coordinates.
    pub len: u32,
    /// First coordinate's index in the tensor.
    pub index: u32,
    /// The tensor.
    pub tensor: u32,
    /// Its row of step scalars, relative to the first of the dispatch.
    pub row: u32,
    /// First word of its bits in the page.
    pub mask: u32,
    /// First coordinate's place in the binding of the parameters.
    pub param: u32,
    /// First coordinate's place in the binding of the gradients.
    pub grad: u32,
    /// Which of the workgroups that share the piece; of a matrix, which slot of the workspaces it has.
    pub part: u32,
    /// How many they are.
    pub parts: u32,
    /// Coordinates of a row, where it has a moment of its own.
    pub row_len: u32,
    /// Where the moments of the tensor's rows begin.
    pub rows: u32,
}

/// Where the words of a sampled tensor begin: its keys among the sampled ones, the others among the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Words {
    pub sample: u32,
    pub histogram: u32,
    pub candidates: u32,
    pub list: u32,
}

/// Everything that is decided before a device is touched.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Who holds parameters and gradients.
    pub ownership: Ownership,
    /// Tensors, class after class.
    pub tensors: Vec<Tensor>,
    /// Index into `tensors` of each spec, in the caller's order.
    pub order: Vec<usize>,
    /// Classes.
    pub classes: Vec<Class>,
    /// Pages.
    pub pages: Vec<Page>,
    /// Chunks, then pieces, then matrices.
    pub chunks: Vec<Chunk>,
    /// Arena blocks: a buffer each for parameters, gradients and every state.
    pub blocks: Vec<Block>,
    /// Bytes of each scratch block.
    pub scratch_blocks: Vec<u64>,
    /// Words for histograms, candidates and sums of squares.
    pub counters: u64,
    /// Words for sampled keys.
    pub samples: u64,
    /// Bytes in which Newton–Schulz works, from one shape to the next: X, its successor (and X Xᵀ), the polynomial, and for
    /// wide shapes two more of its size.
    pub workspaces: [u64; 5],
    /// Where each tensor's words begin.
    pub(crate) words: Vec<Words>,
    /// Format of parameters and gradients, as the caller sees them.
    pub precision: Precision,
    /// Factors of learning rates of all components, padded; 0 if no tensor has any.
    pub rates: u64,
    /// Whether gradients of several micro-batches are added up.
    pub accumulates: bool,
    /// Whether steps are observed.
    pub observes: bool,
    /// What its kernels do with gradients.
    pub gradients: Gradients,
    /// Where the chunks' sums of squares begin among the counters: of gradients that are guarded (`None` if they are not),
    /// of a matrix base's directions, and of its gradients.
    pub norms: Option<u32>,
    pub(crate) matrix_norms: [u32; 2],
    names: HashMap<String, usize>,
}

impl Plan {
    /// Lays out `specs`.
    ///
    /// # Errors
    /// A recipe out of range, no tensors or groups, an empty or repeated name, a size of 0, an unknown group, or a
    /// tensor or table too large for the limits.
    pub fn new(
        specs: &[TensorSpec],
        groups: &ParamGroups,
        ownership: Ownership,
        limits: PlanLimits,
    ) -> Result<Self, Error> {
        let names = validate(specs, groups)?;
        let by_row = |recipe: &Recipe| {
            let bases = [Some(recipe.base), recipe.fallback().map(|fallback| fallback.base)];
            bases.iter().flatten().any(|base| BaseKind::of(base) == BaseKind::AdamwRows)
        };
        if ownership == Ownership::Stateless && groups.recipes().iter().any(by_row) {
            return Err(Error::Plan("an optimizer without state has none for rows".to_owned()));
        }
        let keeps =
            groups.gradients().skips || groups.accumulation() > 1 || groups.precision() != Precision::F32;
        if ownership == Ownership::Stateless && keeps {
            return Err(Error::Plan(
                "an optimizer without state keeps no counts of skipped steps, sums of gradients or masters"
                    .to_owned(),
            ));
        }
        let mut plan = Self {
            ownership,
            tensors: Vec::with_capacity(specs.len()),
            order: vec![0; specs.len()],
            classes: Vec::new(),
            pages: Vec::new(),
            chunks: Vec::new(),
            blocks: Vec::new(),
            scratch_blocks: Vec::new(),
            counters: 0,
            samples: 0,
            workspaces: [0; 5],
            words: Vec::new(),
            precision: groups.precision(),
            rates: 0,
            accumulates: groups.accumulation() > 1,
            observes: groups.telemetry().is_some(),
            gradients: groups.gradients(),
            norms: None,
            matrix_norms: [0; 2],
            names,
        };
        plan.place_tensors(specs, groups, limits)?;
        plan.cut_pages(limits);
        plan.cut_pieces();
        plan.place_matrices(limits)?;
        plan.place_rates()?;
        plan.place_counters(limits)?;
        Ok(plan)
    }

    /// The tensor of this name.
    ///
    /// # Errors
    /// [`Error::UnknownTensor`].
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        match self.names.get(name) {
            Some(&spec) => Ok(&self.tensors[self.order[spec]]),
            None => Err(Error::UnknownTensor(name.to_owned())),
        }
    }

    /// Index into the specs of a tensor.
    pub(crate) fn spec_of(&self, tensor: usize) -> usize {
        self.names[&self.tensors[tensor].spec.name]
    }

    /// Index into `tensors` of the tensor of this name.
    pub(crate) fn tensor_index(&self, name: &str) -> Result<usize, Error> {
        let spec = self.names.get(name).ok_or_else(|| Error::UnknownTensor(name.to_owned()))?;
        Ok(self.order[*spec])
    }

    /// Multiplications and additions of Newton–Schulz in a step, its products counted in full: 4 m² n + 2 m³ an iteration.
    pub fn flops(&self) -> f64 {
        let of = |class: &Class| {
            let Some(Matrices { shape, steps }) = class.matrices else { return 0.0 };
            let (m, n) = (shape.m as f64, shape.n as f64);
            class.tensors.len() as f64 * f64::from(steps) * (4.0 * m * m * n + 2.0 * m * m * m)
        };
        self.classes.iter().map(of).sum()
    }

    /// The kind of base that steps a tensor.
    pub fn base_of(&self, tensor: &Tensor) -> BaseKind {
        self.classes[self.blocks[tensor.block].class].base
    }

    /// Chunks of all tensors.
    pub(crate) fn chunk_count(&self) -> u32 {
        self.tensors[self.tensors.len() - 1].chunks.end
    }

    /// Bytes of what is observed: four words a chunk, then eight a tensor.
    pub(crate) fn observations(&self) -> u64 {
        16 * u64::from(self.chunk_count()) + 32 * self.tensors.len() as u64
    }

    /// Coordinates of all tensors.
    pub fn numel(&self) -> u64 {
        self.tensors.iter().map(|t| t.numel).sum()
    }

    /// Bytes of the buffers that the optimizer keeps, parameters and gradients included where it owns them, tables left
    /// out.
    pub fn memory(&self) -> u64 {
        let bytes = |block: &Block| {
            let states = self.classes[block.class].base.states();
            let rows = if self.ownership == Ownership::Stateless { 0 } else { 4 * block.rows };
            let masters = u64::from(self.precision != Precision::F32);
            rows + block.len
                * match self.ownership {
                    Ownership::Arenas => 2 * self.precision.bytes() + 4 * (masters + states),
                    Ownership::Caller => 4 * (masters + states),
                    Ownership::Stateless => 0,
                }
        };
        let arenas = self.blocks.iter().map(bytes).sum::<u64>();
        let parameters = 4 * self.blocks.iter().map(|block| block.len).sum::<u64>();
        let sums = if self.accumulates { parameters } else { 0 };
        let observations = if self.observes { parameters + self.observations() } else { 0 };
        arenas + sums + observations + self.scratch_memory()
    }

    /// Bytes of the buffers that the kernels of a step hand to each other: what `memory` has besides parameters, gradients
    /// and state.
    pub fn scratch_memory(&self) -> u64 {
        let bits = self.scratch_blocks.iter().sum::<u64>();
        bits + self.workspaces.iter().sum::<u64>() + 4 * (self.counters + self.samples)
    }

    fn place_tensors(
        &mut self,
        specs: &[TensorSpec],
        groups: &ParamGroups,
        limits: PlanLimits,
    ) -> Result<(), Error> {
        // Rows of a dispatch are a window over the groups, so the window is part of the class.
        type Key = (BaseKind, PolicyKind, Option<Matrices>, usize);
        let mut by_class: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (i, spec) in specs.iter().enumerate() {
            let Recipe { base, policy } = groups.recipe_of(spec);
            let matrices = base
                .newton_schulz()
                .and_then(|ns| Some(Matrices { shape: spec.matrix()?.shape(), steps: ns.steps }));
            let policy = PolicyKind::of(&policy, spec.numel());
            let key = (BaseKind::of(&base), policy, matrices, groups.row_of(spec) / ROWS);
            by_class.entry(key).or_default().push(i);
        }
        for ((base, policy, matrices, window), members) in by_class {
            let first = self.tensors.len();
            let class = self.classes.len();
            let mut blocks = Vec::new();
            let mut rows: Vec<u64> = Vec::new();
            for i in members {
                let spec = &specs[i];
                let numel = spec.numel();
                let padded = numel.next_multiple_of(ALIGNMENT);
                let (block, offset) = allocate(&mut blocks, padded, limits.buffer / 4);
                rows.resize(blocks.len(), 0);
                let row_len = numel / spec.shape.first().map_or(1, |&rows| rows as u64);
                let first_row = rows[block];
                if base == BaseKind::AdamwRows {
                    rows[block] += (numel / row_len).next_multiple_of(ALIGNMENT);
                }
                self.order[i] = self.tensors.len();
                let recipe = groups.recipe_of(spec);
                let k = match recipe.policy {
                    Policy::Mgup(mgup) => mgup.k(numel as usize) as u64,
                    _ => 0,
                };
                self.tensors.push(Tensor {
                    spec: spec.clone(),
                    numel,
                    k,
                    row: groups.row_of(spec),
                    sampling: policy.samples().then(|| Sampling::new(numel, k)),
                    block: self.blocks.len() + block,
                    offset,
                    chunks: 0..0,
                    pages: 0..0,
                    row_len,
                    rows: first_row,
                    rates: 0,
                });
            }
            let rows = rows.into_iter();
            self.blocks.extend(blocks.into_iter().zip(rows).map(|(len, rows)| Block { class, len, rows }));
            self.classes.push(Class {
                base,
                policy,
                matrices,
                first_row: window * ROWS,
                tensors: first..self.tensors.len(),
                pages: 0..0,
            });
        }
        within("max_buffer_size", largest_tensor(specs), limits.buffer)?;
        // A page has a chunk at least.
        within("max_storage_buffer_binding_size", self.whole_tensors().max(4 * CHUNK), limits.binding)
    }

    /// Bytes of the largest binding that tensors with a second moment a row need: they are not cut, nor are the moments.
    pub(crate) fn whole_tensors(&self) -> u64 {
        let by_row = self.tensors.iter().filter(|tensor| self.base_of(tensor) == BaseKind::AdamwRows);
        let largest = by_row.map(|tensor| 4 * tensor.numel.next_multiple_of(ALIGNMENT)).max().unwrap_or(0);
        self.blocks.iter().map(|block| 4 * block.rows).max().unwrap_or(0).max(largest)
    }

    fn cut_pages(&mut self, limits: PlanLimits) {
        let limits = PlanLimits { binding: limits.binding.min(PAGE), ..limits };
        for class in 0..self.classes.len() {
            let first_page = self.pages.len();
            let Class { base, policy, matrices, first_row, .. } = self.classes[class];
            let bits_bytes = policy.bits_bytes(base);
            let most = limits.binding.min(limits.buffer);
            let room = matrices.map_or(u64::MAX, |m| (most / (16 * m.shape.slot())).min(MATRICES));
            for t in self.classes[class].tensors.clone() {
                let tensor = &self.tensors[t];
                let (block, numel) = (tensor.block, tensor.numel);
                let first_chunk = self.chunks.len() as u32;
                let mut pages: Option<Range<usize>> = None;
                for index in (0..numel).step_by(CHUNK as usize) {
                    let len = CHUNK.min(numel - index);
                    let place = self.tensors[t].offset + index;
                    let end = (place + len).next_multiple_of(ALIGNMENT);
                    // Matrices are not cut, nor tensors whose rows have moments.
                    let end = if matrices.is_some() || base == BaseKind::AdamwRows {
                        (place - index + numel).next_multiple_of(ALIGNMENT)
                    } else {
                        end
                    };
                    let bits = self.pages.last().map_or(0, |p| p.chunks.len() as u64 * bits_bytes);
                    let fits = self.pages.len() > first_page
                        && self.pages.last().is_some_and(|page| {
                            page.block == block
                                && 4 * (end - page.offset) <= limits.binding
                                && bits + bits_bytes <= limits.binding
                                && (page.tensors.end == t + 1 || (page.tensors.len() as u64) < room)
                                && (self.ownership != Ownership::Stateless || page.tensors.start == t)
                        });
                    let end = (place + len).next_multiple_of(ALIGNMENT);
                    if !fits {
                        let at = self.chunks.len() as u32;
                        self.pages.push(Page {
                            class,
                            block,
                            offset: place,
                            len: 0,
                            numel: 0,
                            chunks: at..at,
                            pieces: 0..0,
                            matrices: 0..0,
                            tensors: t..t,
                            scratch: (0, 0, 0),
                        });
                    }
                    let p = self.pages.len() - 1;
                    let page = &mut self.pages[p];
                    let offset = (place - page.offset) as u32;
                    self.chunks.push(Chunk {
                        offset,
                        len: len as u32,
                        index: index as u32,
                        tensor: t as u32,
                        row: (self.tensors[t].row - first_row) as u32,
                        mask: (page.chunks.len() as u64 * bits_bytes / 4) as u32,
                        param: offset,
                        grad: offset,
                        part: 0,
                        parts: 1,
                        row_len: self.tensors[t].row_len as u32,
                        rows: self.tensors[t].rows as u32,
                    });
                    page.len = end - page.offset;
                    page.numel += len;
                    page.chunks.end += 1;
                    page.tensors.end = t + 1;
                    pages.get_or_insert(p..p).end = p + 1;
                }
                self.tensors[t].chunks = first_chunk..self.chunks.len() as u32;
                self.tensors[t].pages = pages.expect("a tensor has a chunk");
            }
            for page in &mut self.pages[first_page..] {
                let size = page.chunks.len() as u64 * bits_bytes;
                if size > 0 {
                    let (block, offset) = allocate(&mut self.scratch_blocks, size, limits.buffer);
                    page.scratch = (block, offset, size);
                }
            }
            self.classes[class].pages = first_page..self.pages.len();
        }
    }

    fn cut_pieces(&mut self) {
        for page in &mut self.pages {
            let first = self.chunks.len() as u32;
            let mut chunks = page.chunks.clone();
            while let Some(c) = chunks.next() {
                let mut piece = self.chunks[c as usize];
                let Some(sampling) = self.tensors[piece.tensor as usize].sampling else { break };
                while let Some(next) = chunks.clone().next().map(|c| self.chunks[c as usize]) {
                    if next.tensor != piece.tensor {
                        break;
                    }
                    piece.len += next.len;
                    chunks.next();
                }
                let first = u64::from(piece.index);
                piece.parts = sampling.parts(first, first + u64::from(piece.len)) as u32;
                self.chunks.extend((0..piece.parts).map(|part| Chunk { part, ..piece }));
            }
            page.pieces = first..self.chunks.len() as u32;
        }
    }

    /// A place for each matrix in the table, and room for the largest page of them to be orthogonalised.
    fn place_matrices(&mut self, limits: PlanLimits) -> Result<(), Error> {
        for page in &mut self.pages {
            let first = self.chunks.len() as u32;
            if let Some(Matrices { shape, .. }) = self.classes[page.class].matrices {
                for t in page.tensors.clone() {
                    let tensor = &self.tensors[t];
                    let first = self.chunks[tensor.chunks.start as usize];
                    let part = (t - page.tensors.start) as u32;
                    self.chunks.push(Chunk { len: tensor.numel as u32, part, ..first });
                }
                let slots = 16 * page.tensors.len() as u64;
                let needed = [
                    // Directions come and go as they lie in the page.
                    (slots * shape.slot()).max(4 * page.len),
                    (slots * shape.slot()).max(4 * page.len),
                    slots * shape.gram_slot(),
                    if shape.is_wide() { slots * shape.gram_slot() } else { 0 },
                    if shape.is_wide() { slots * shape.gram_slot() } else { 0 },
                ];
                for (size, needed) in self.workspaces.iter_mut().zip(needed) {
                    *size = needed.max(*size);
                }
            }
            page.matrices = first..self.chunks.len() as u32;
        }
        let largest = self.workspaces[0];
        within("max_storage_buffer_binding_size", largest, limits.binding)?;
        within("max_buffer_size", largest, limits.buffer)
    }

    /// The first factors are 1, for tensors without any.
    fn place_rates(&mut self) -> Result<(), Error> {
        if self.tensors.iter().all(|tensor| tensor.spec.components == 0) {
            return Ok(());
        }
        self.rates = RATES_ALIGNMENT;
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.spec.components > 0) {
            tensor.rates = self.rates as u32;
            self.rates += (tensor.spec.components as u64).next_multiple_of(RATES_ALIGNMENT);
        }
        if self.rates > RATES {
            return Err(Error::Plan(format!(
                "learning rates of components, padded to {RATES_ALIGNMENT} a tensor, take {} places, and there are {RATES}",
                self.rates
            )));
        }
        Ok(())
    }

    fn place_counters(&mut self, limits: PlanLimits) -> Result<(), Error> {
        fn take(words: &mut u64, count: u64) -> u32 {
            *words += count;
            (*words - count) as u32
        }
        let chunks = u64::from(self.chunk_count());
        let sums = u64::from(self.gradients.guarded)
            + if self.classes.iter().any(|class| class.base.is_matrix()) { 2 } else { 0 };
        self.fit_candidates((limits.binding / 4).saturating_sub(sums * chunks));
        self.words = vec![Words::default(); self.tensors.len()];
        for class in &self.classes {
            for t in class.tensors.clone() {
                let Some(sampling) = self.tensors[t].sampling else { continue };
                let words = &mut self.words[t];
                words.sample = take(&mut self.samples, sampling.coordinates());
                words.histogram = take(&mut self.counters, class.policy.bounds() * BINS);
                if class.policy == PolicyKind::Mgup {
                    words.candidates = take(&mut self.counters, CANDIDATE * u64::from(sampling.capacity));
                    words.list = take(&mut self.counters, sampling.boundary.into());
                }
            }
        }
        if self.gradients.guarded {
            self.norms = Some(take(&mut self.counters, chunks));
        }
        if self.classes.iter().any(|class| class.base.is_matrix()) {
            self.matrix_norms = [(); 2].map(|()| take(&mut self.counters, chunks));
        }
        within("max_storage_buffer_binding_size", 4 * self.counters.max(self.samples), limits.binding)
    }

    /// Gives candidates less room where all of them, with the histograms, take more than so many words.
    fn fit_candidates(&mut self, words: u64) {
        let exact: Vec<usize> = self
            .classes
            .iter()
            .filter(|class| class.policy == PolicyKind::Mgup)
            .flat_map(|class| class.tensors.clone())
            .collect();
        let histograms: u64 =
            self.classes.iter().map(|c| c.tensors.len() as u64 * c.policy.bounds() * BINS).sum();
        let room = words.saturating_sub(histograms);
        let samplings: Vec<Sampling> = exact.iter().filter_map(|&t| self.tensors[t].sampling).collect();
        let wanted: u64 = samplings.iter().map(Sampling::candidate_words).sum();
        let mut share = room as f64 / wanted as f64;
        if wanted <= room {
            return;
        }
        // Lists of one bin do not shrink in proportion.
        loop {
            let shrunk = |s: &Sampling| {
                let capacity = (f64::from(s.capacity) * share) as u32 / 64 * 64;
                s.with_capacity(capacity.max(s.least_capacity()))
            };
            let fitted: Vec<Sampling> = samplings.iter().map(shrunk).collect();
            let least = fitted.iter().all(|s| s.capacity == s.least_capacity());
            if least || fitted.iter().map(Sampling::candidate_words).sum::<u64>() <= room {
                for (&t, sampling) in exact.iter().zip(fitted) {
                    self.tensors[t].sampling = Some(sampling);
                }
                return;
            }
            share *= 0.95;
        }
    }

    /// Words of the counters where candidates have as little room as they may.
    pub(crate) fn least_counters(&self) -> u64 {
        let spare = |sampling: Sampling| {
            let least = sampling.with_capacity(sampling.least_capacity());
            sampling.candidate_words() - least.candidate_words()
        };
        let exact = self.classes.iter().filter(|class| class.policy == PolicyKind::Mgup);
        let samplings =
            exact.flat_map(|class| class.tensors.clone()).filter_map(|t| self.tensors[t].sampling);
        self.counters - samplings.map(spare).sum::<u64>()
    }
}

pub(crate) fn within(limit: &str, needed: u64, available: u64) -> Result<(), Error> {
    if needed <= available {
        return Ok(());
    }
    Err(Error::Unsupported(vec![Missing { limit: limit.to_owned(), needed, available }]))
}

/// Largest matrix of a matrix base in bytes, as it is orthogonalised: what must fit into a buffer and a binding.
pub(crate) fn largest_matrix(specs: &[TensorSpec], groups: &ParamGroups) -> u64 {
    let slot = |spec: &TensorSpec| {
        groups.recipe_of(spec).base.newton_schulz()?;
        Some(16 * spec.matrix()?.shape().slot())
    };
    specs.iter().filter_map(slot).max().unwrap_or(0)
}

/// Largest tensor in bytes, with its padding: what `max_buffer_size` must at least be.
pub(crate) fn largest_tensor(specs: &[TensorSpec]) -> u64 {
    specs.iter().map(|s| 4 * s.numel().next_multiple_of(ALIGNMENT)).max().unwrap_or(0)
}

pub(crate) fn validate(specs: &[TensorSpec], groups: &ParamGroups) -> Result<HashMap<String, usize>, Error> {
    groups.validate()?;
    if specs.is_empty() {
        return Err(Error::Plan("there must be at least one tensor".to_owned()));
    }
    let mut names = HashMap::new();
    for (i, spec) in specs.iter().enumerate() {
        let refuse = |reason: String| Err(Error::Tensor { tensor: spec.name.clone(), reason });
        if spec.name.is_empty() {
            return refuse(format!("tensor {i} has an empty name"));
        }
        if let Some(first) = names.insert(spec.name.clone(), i) {
            return refuse(format!("tensors {first} and {i} have the same name"));
        }
        if spec.shape.contains(&0) {
            return refuse(format!("shape {:?} holds nothing; leave the tensor out", spec.shape));
        }
        let numel = spec.shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size as u64));
        if numel.is_none_or(|n| n > u64::from(u32::MAX) - CHUNK) {
            return refuse(format!("shape {:?} has more than 2^32 coordinates", spec.shape));
        }
        if spec.components > 0 && !numel.is_some_and(|n| n.is_multiple_of(spec.components as u64)) {
            let shape = &spec.shape;
            return refuse(format!(
                "{} components do not divide the coordinates of shape {shape:?}",
                spec.components
            ));
        }
        if spec.group >= groups.recipes().len() {
            return refuse(format!("group {} of {}", spec.group, groups.recipes().len()));
        }
    }
    // Before anything is laid out, which takes memory.
    if specs.iter().map(TensorSpec::numel).sum::<u64>() > MOST {
        return Err(Error::Plan("the tensors have more than 2^36 coordinates in all".to_owned()));
    }
    for (g, recipe) in groups.recipes().iter().enumerate() {
        let mut own = specs.iter().filter(|spec| spec.group == g).peekable();
        let wanted = recipe.fallback().is_some() && !groups.may_lack_matrices();
        if wanted && own.peek().is_some() && own.all(|spec| spec.matrix().is_none()) {
            return Err(Error::Plan(format!(
                "`{recipe}` is for matrices, and none of its tensors is one: give a tensor rank 2 or another `MatrixLayout`, \
                 or use `{}`",
                recipe.fallback().expect("a matrix base has one")
            )));
        }
    }
    Ok(names)
}

/// Appends `size` to the last block, or opens a new one; returns the block and the offset in it.
fn allocate(blocks: &mut Vec<u64>, size: u64, limit: u64) -> (usize, u64) {
    match blocks.last_mut() {
        Some(used) if *used + size <= limit => {
            *used += size;
            (blocks.len() - 1, blocks[blocks.len() - 1] - size)
        }
        _ => {
            blocks.push(size);
            (blocks.len() - 1, 0)
        }
    }
}
