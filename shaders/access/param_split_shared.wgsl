// Parameters in bf16 and the lower halves of their masters, where the halves of a word may be those of two lanes.

import package::lib::{halves::{packed, unpacked}, split::{below_of, half_of, joined}};
import package::tables::{Chunk, EACH};

@group(1) @binding(0) var<storage, read_write> param: array<atomic<u32>>;
@group(1) @binding(6) var<storage, read_write> master_low: array<atomic<u32>>;

fn load_param(chunk: Chunk, vector: u32, lanes: u32) -> vec4<f32> {
    let first = chunk.param / 2u + 2u * vector;
    var words = vec2<u32>(atomicLoad(&param[first]), 0u);
    if lanes > 2u { words.y = atomicLoad(&param[first + 1u]); }
    let low = chunk.offset / 2u + 2u * vector;
    let below = vec2<u32>(atomicLoad(&master_low[low]), atomicLoad(&master_low[low + 1u]));
    return select(vec4<f32>(), joined(unpacked(words), unpacked(below)), EACH < vec4<u32>(lanes));
}

fn store_param(chunk: Chunk, vector: u32, lanes: u32, value: vec4<f32>) {
    let first = chunk.param / 2u + 2u * vector;
    let words = packed(half_of(value));
    atomicStore(&param[first], words.x);
    if lanes > 2u { atomicStore(&param[first + 1u], words.y); }
    let low = chunk.offset / 2u + 2u * vector;
    let below = packed(below_of(value));
    atomicStore(&master_low[low], below.x);
    atomicStore(&master_low[low + 1u], below.y);
}
