// The tables that every kernel reads: which work a workgroup has, the scalars of the step, and what selection has
// found out about each tensor. The Rust side is `src/kernel.rs`; a test compares the two.

const WORKGROUP: u32 = 256u;
const LANES: u32 = 32u;     // of a workgroup that streams a chunk: few, so that each has a long run
const CHUNK: u32 = 4096u;
const BINS: u32 = 2048u;

// One dispatch.
struct Grid {
    first: u32,         // of the chunks, pieces or tensors that this dispatch works on
    count: u32,         // how many; workgroups beyond it have nothing to do
    correct: u32,       // 1 in the last dispatch of the selection by full histograms
    bounds: u32,        // cuts that are taken from the sample: 2, or 1 for approximate selection
    norms: u32,         // where the chunks' sums of squared gradients begin among the counters
    launch: u32,        // which of the launches is for tensors whose bracket missed
    launch_x: u32,      // its workgroups
    launch_y: u32,
    gradient_norms: u32,    // as `norms`, of the gradients of a matrix base; `norms` is of its directions then
    m: u32,                 // shape of the matrices, m ≤ n
    n: u32,
    left_stride: u32,       // vectors from row to row, and from matrix to matrix, of the left factor
    left_slot: u32,
    right_slot: u32,        // from matrix to matrix of the right factor
    result_slot: u32,       // of the result
    gram_stride: u32,       // of what is m × m
    gram_slot: u32,
    depth: u32,             // vectors that a product sums over
    polynomial: u32,        // 1 where the left factor is X Xᵀ
    records: u32,           // where the records of what was observed begin
}

// Consecutive coordinates of one tensor: a chunk, or a piece, which is all of a tensor that lies in the page, or a matrix,
// which is all of a tensor. Places count coordinates and are multiples of 4.
struct Chunk {
    offset: u32,        // first coordinate's place in the page: in the state and in the scratch
    len: u32,
    index: u32,         // first coordinate's index in the tensor
    tensor: u32,
    row: u32,
    mask: u32,          // first word of its bits in the page
    param: u32,         // first coordinate's place among the parameters
    grad: u32,          // and among the gradients
    part: u32,          // which of the workgroups that share the piece; the slot of a matrix
    parts: u32,         // how many they are
    row_len: u32,       // coordinates of a row, where it has a moment of its own
    rows: u32,          // where the moments of the tensor's rows begin
}

// The scalars of one step of one parameter group.
struct Row {
    step: f32,
    decay: f32,
    beta1: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    eps: f32,
    alpha: f32,
    gamma: f32,
    max_grad_norm: f32,
    t: u32,                 // the step, from 1
    count_normalizer: u32,
    ns_a: f32,              // coefficients of Newton–Schulz
    ns_b: f32,
    ns_c: f32,
    lr: f32,                // of AdaGO, like the others below
    clip: f32,
    min_step: f32,
    accumulator_init: f32,  // a₀, the square
    grad_scale: f32,        // what gradients are multiplied by
    max_grad_value: f32,
    ln_beta1: f32,          // for the bias corrections where steps may be skipped
    ln_beta2: f32,
    corrects: u32,          // which scalars they apply to
    skips: u32,             // 1 where a gradient that is not finite skips the step
    growth: f32,            // of the scale of the loss
    backoff: f32,
    growth_interval: u32,   // 0 for a scale that stays
    // A row is as long as the alignment of a dynamic offset. Not by @size: OpenGL does not know it.
    unused: array<vec4<u32>, 9>,
}

// A place in the order of selection: behind the keys above `key`, and those at `key` with an index below `limit`.
struct Cut {
    key: u32,
    limit: u32,
}

// What is known about one tensor: its top-K, and what a matrix base keeps.
struct Tensor {
    k: u32,
    numel: u32,
    first_chunk: u32,
    histogram: u32,         // where its bins begin among the counters
    sample: u32,            // where its sampled keys begin
    stride: u32,            // sectors in a stratum
    strata: u32,
    rank_high: u32,         // ranks in the sample between which the K-th largest is looked for
    rank_low: u32,
    candidates: u32,        // where its candidates begin among the counters
    capacity: u32,          // how many there may be
    list: u32,              // where the list of those of one bin begins
    list_capacity: u32,
    t: u32,                 // the step that sampled
    high: Cut,              // what lies before it is selected
    low: Cut,               // what lies behind it is not
    boundary: i32,          // the bin of the bracket that holds the K-th largest
    remaining: u32,         // how many are still to be selected in that bin
    missed: u32,            // 1 if the bracket did not hold the K-th largest, or had too many candidates
    open: u32,              // round of the selection by full histograms, from 1; 0 when its cut is known
    found: Cut,             // what it has found
    inside: atomic<u32>,    // candidates
    listed: atomic<u32>,
    selected: atomic<u32>,
    tall: u32,              // 1 for a matrix of more rows than columns
    inverse_norm: f32,      // 1 / (‖d‖ + 1e-7); negative, of 2⁻⁹⁶ d, where ‖d‖² is beyond f32
    rate: f32,              // of the orthogonalised direction
    accumulator: f32,       // Σ n² of AdaGO
    skipped: u32,           // steps that it was to take and did not
    components: u32,        // that have a factor of the learning rate each
    rates: u32,             // where these begin
    mastered: u32,          // 1 once its master holds its values, where it is stored in two bytes
}

struct Tensors {
    loss_scale: f32,        // what the loss is multiplied by, first so that it can be bound alone
    grad_norm: f32,         // over all tensors of the step, before it is clipped
    norm_factor: f32,       // what the gradients are multiplied by to clip it
    unscale: f32,           // 1 / loss_scale, of this step
    skip: u32,              // 1 if this step changes nothing
    skipped: u32,           // steps that were
    grown: u32,             // steps since the scale of the loss changed
    broken: u32,            // the first tensor with a gradient that is not finite, or 0xffffffff
    each: array<Tensor>,
}

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<uniform> rows: array<Row, 64>;
@group(0) @binding(2) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(3) var<storage, read_write> tensors: Tensors;

// Grids are two-dimensional because a dimension ends at 65,535.
fn linear(workgroup: vec3<u32>, count: vec3<u32>) -> u32 {
    return workgroup.y * count.x + workgroup.x;
}

// The word of mask bits of a vector of a chunk: each lane has 4 bits for each of its vectors, 8 vectors in a word.
fn mask_word(chunk: Chunk, vector: u32) -> u32 {
    return chunk.mask + vector / (8u * LANES) * LANES + vector % LANES;
}

fn mask_shift(vector: u32) -> u32 {
    return 4u * (vector / LANES % 8u);
}
