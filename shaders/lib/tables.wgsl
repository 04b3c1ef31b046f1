// The tables that kernels read: which work a workgroup has, the scalars of the step, and what selection has found out about each tensor.
// Their structs are declared once, in `src/kernel/tables.rs`, and become a part of this file.

const WORKGROUP: u32 = 256u;
const LANES: u32 = 32u;     // of a workgroup that streams a chunk on a CPU: few, so that each has a long run. `Config::find` knows GPUs.
const CHUNK: u32 = 4096u;
const BINS: u32 = 2048u;
const EACH: vec4<u32> = vec4<u32>(0u, 1u, 2u, 3u);  // the coordinates of a vector

@group(0) @binding(0) var<uniform> grid: Grid;
@group(0) @binding(1) var<uniform> scalars: array<Scalars, 64>;
@group(0) @binding(2) var<storage, read> chunks: array<Chunk>;
@group(0) @binding(3) var<storage, read_write> tensors: Tensors;
@group(3) @binding(0) var<storage, read_write> counters: array<atomic<u32>>;    // histograms, candidates and sums of squares

// A bound of a loop, for lanes that are `true`. Not the uniform itself: some drivers compile a kernel again for each value that bounds a loop.
fn opaque(bound: u32, is_lane: bool) -> u32 {
    return select(0u, bound, is_lane);
}

// Which workgroup runs. Grids are two-dimensional because a dimension ends at 65,535. The lane is not a member: browsers take a struct to be
// the same for all lanes only if every member is, and refuse barriers that depend on it otherwise.
struct Invocation {
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
}

fn linear(at: Invocation) -> u32 {
    return at.workgroup.y * at.workgroups.x + at.workgroup.x;
}

// For kernels over matrices: the second dimension counts them.
fn linear_block(at: Invocation) -> u32 {
    return at.workgroup.z * at.workgroups.x + at.workgroup.x;
}
