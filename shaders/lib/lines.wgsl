// Numbers per row or column of a matrix, among the counters. They are sums at first, and factors of the orthogonalized direction later.
// With LINE_DECAY, factors of the weight decay follow these.

import package::lib::largest::LARGEST;
import package::tables::{Chunk, EACH, Scalars, counters, tensors};

override LINE_DECAY: bool = false;

// Coordinates of a row or column that a workgroup sums.
const BLOCK: u32 = 1024u;

fn blocks_of(len: u32) -> u32 {
    return (len + BLOCK - 1u) / BLOCK;
}

// Sums stay finite: they are at most LARGEST².
fn add(sum: f32, square: f32) -> f32 {
    return min(sum, LARGEST * LARGEST - square) + square;
}

// The sum of a row or column of this length: one of `count` from `first` on, those of each block together.
fn load_sum(first: u32, count: u32, len: u32, line: u32) -> f32 {
    var sum = 0.0;
    for (var block = 0u; block < blocks_of(len); block += 1u) {
        sum = add(sum, load_line(first + block * count + line));
    }
    return sum;
}

fn load_line(place: u32) -> f32 {
    return bitcast<f32>(atomicLoad(&counters[place]));
}

fn store_line(place: u32, value: f32) {
    atomicStore(&counters[place], bitcast<u32>(value));
}

// How many numbers there are, if either rows or columns have them.
fn line_count(chunk: Chunk) -> u32 {
    let rows = tensors.each[chunk.tensor].numel / chunk.row_len;
    return select(chunk.row_len, rows, tensors.each[chunk.tensor].sums_rows == 1u);
}

// The numbers for a vector of a chunk. `first` counts from the tensor's first number.
fn lines_of(chunk: Chunk, vector: u32, first: u32) -> vec4<f32> {
    let index = vec4<u32>(chunk.index + 4u * vector) + EACH;
    let length = vec4<u32>(chunk.row_len);
    let line = select(index % length, index / length, vec4<bool>(tensors.each[chunk.tensor].sums_rows == 1u));
    let at = vec4<u32>(tensors.each[chunk.tensor].lines + first) + line;
    return vec4<f32>(load_line(at.x), load_line(at.y), load_line(at.z), load_line(at.w));
}

// The share that weight decay takes away from a vector of a chunk.
fn decay_of(chunk: Chunk, vector: u32, s: Scalars) -> vec4<f32> {
    if LINE_DECAY { return min(vec4<f32>(1.0), s.decay * lines_of(chunk, vector, line_count(chunk))); }
    return vec4<f32>(s.decay);
}
