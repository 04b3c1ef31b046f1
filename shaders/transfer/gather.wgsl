// The rows of a resized tensor from those that it had: row r takes row index[r], or stays zero. One word per invocation.

import package::tables::{Invocation, linear};

struct Rows {
    count: u32,         // rows now
    words: u32,         // of a row
    count_before: u32,
    is_state: u32,      // 1 where the index may say that it begins again
}

const NO_ROW: u32 = 0xffffffffu;
const PARAMETERS_ONLY: u32 = 0x80000000u;

@group(0) @binding(0) var<uniform> resized: Rows;
@group(1) @binding(0) var<storage, read_write> before: array<u32>;
@group(1) @binding(1) var<storage, read_write> after: array<u32>;
@group(1) @binding(2) var<storage, read_write> index: array<u32>;

@compute @workgroup_size(256)
fn gather(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in) * 256u + lane;
    if at < resized.count * resized.words {
        let found = index[at / resized.words];
        let source = found & ~PARAMETERS_ONLY;
        let fresh = found == NO_ROW || (resized.is_state == 1u && (found & PARAMETERS_ONLY) != 0u);
        if source < resized.count_before && !fresh {
            after[at] = before[source * resized.words + at % resized.words];
        }
    }
}
