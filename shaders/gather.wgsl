// The rows of a resized tensor, from those that it had: row r takes row index[r], or stays zero. One word an invocation.

const NONE: u32 = 0xffffffffu;
const PARAMETERS_ONLY: u32 = 0x80000000u;

@group(1) @binding(0) var<storage, read_write> before: array<u32>;
@group(1) @binding(1) var<storage, read_write> after: array<u32>;
@group(1) @binding(2) var<storage, read_write> index: array<u32>;

@compute @workgroup_size(256)
fn gather(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // `m` rows of `n` words now, `depth` rows before; the state of some rows begins anew (`correct`).
    let at = linear(workgroup, workgroups) * WORKGROUP + lane;
    if at < grid.m * grid.n {
        let found = index[at / grid.n];
        let source = found & ~PARAMETERS_ONLY;
        let fresh = found == NONE || (grid.correct == 1u && (found & PARAMETERS_ONLY) != 0u);
        if source < grid.depth && !fresh {
            after[at] = before[source * grid.n + at % grid.n];
        }
    }
}
