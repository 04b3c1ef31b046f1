// Clears a range within a compute pass, where no command can. One word per invocation.

import package::tables::{Invocation, linear};

@group(1) @binding(0) var<storage, read_write> words: array<u32>;

@compute @workgroup_size(256)
fn clear(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in) * 256u + lane;
    if at < arrayLength(&words) { words[at] = 0u; }
}
