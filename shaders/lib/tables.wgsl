// The tables that every kernel reads: which work a workgroup has, the scalars of the step, and what selection has
// found out about each tensor. The Rust side is `src/kernel.rs`; a test compares the two.

const WORKGROUP: u32 = 256u;
const LANES: u32 = 32u;     // of a workgroup that streams a chunk: few, so that each has a long run
const CHUNK: u32 = 4096u;

// One dispatch.
struct Grid {
    first: u32,         // of the chunks, spans or tensors that this dispatch works on
    count: u32,         // how many; workgroups beyond it have nothing to do
    digit: u32,         // which digit of the keys selection looks at
    first_chunk: u32,   // of the page
    chunk_count: u32,   // of the page
    ties: u32,          // where the chunks' tie counts begin among the counters
    norms: u32,         // where the chunks' sums of squared gradients begin among the counters
}

// Consecutive coordinates of one tensor. Places count coordinates and are multiples of 4.
struct Chunk {
    offset: u32,        // first coordinate's place in the page: in the state and in the scratch
    len: u32,
    index: u32,         // first coordinate's index in the tensor
    tensor: u32,
    row: u32,
    mask: u32,          // first word of the chunk's mask bits in the page
    param: u32,         // first coordinate's place among the parameters
    grad: u32,          // and among the gradients
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
    @size(216) count_normalizer: u32,
}

// Top-K of one tensor.
struct Selection {
    k: u32,
    numel: u32,
    first_chunk: u32,
    chunk_count: u32,
    histogram: u32,         // where its bins begin among the counters
    open: u32,              // 1 until the threshold is known
    threshold: u32,         // selected: key > threshold, or key = threshold and index < tie_limit; while open, its leading digits
    tie_limit: u32,
    remaining: u32,         // how many are still to be selected inside the open bin
    selected: atomic<u32>,
}

struct Tensors {
    grad_norm: f32,         // over all tensors of the step, before it is clipped
    grad_scale: f32,        // what the gradients are multiplied by to clip it
    selections: array<Selection>,
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
