// The bits of parameters in bf16, whose number is not a multiple of four, in a caller's buffer: words after that of the last coordinate are
// not ours to read or write.

import package::lib::halves::{packed, unpacked};
import package::tables::{Chunk, EACH};

@group(1) @binding(0) var<storage, read_write> param: array<u32>;

fn load_bits(chunk: Chunk, vector: u32, lanes: u32) -> vec4<u32> {
    let first = chunk.param / 2u + 2u * vector;
    var words = vec2<u32>(param[first], 0u);
    if lanes > 2u { words.y = param[first + 1u]; }
    return select(vec4<u32>(), unpacked(words), EACH < vec4<u32>(lanes));
}

fn store_bits(chunk: Chunk, vector: u32, lanes: u32, halves: vec4<u32>) {
    let first = chunk.param / 2u + 2u * vector;
    let words = packed(halves);
    param[first] = words.x;
    if lanes > 2u { param[first + 1u] = words.y; }
}
