// v ← β2 v + (1−β2) mean(g²) of every row that begins in a chunk: one lane per short row, a team of 32 lanes for a long one.

import package::access::grad::load_grad;
import package::lib::{gradients::clip, largest::{LARGEST, within_squares}, skip::{scalars_of, skips}, sum_chunk::SUM_LANES};
import package::tables::{Chunk, EACH, Invocation, LANES, Scalars, chunks, grid, linear, tensors};

@group(1) @binding(3) var<storage, read_write> exp_avg_sq: array<f32>;

const LONG: u32 = 128u;

var<workgroup> team_terms: array<f32, 256>;

// x + y of sums of squares, LARGEST² at most.
fn add_squares(x: vec4<f32>, y: vec4<f32>) -> vec4<f32> {
    return min(x, vec4<f32>(LARGEST * LARGEST) - y) + y;
}

// Valid in the first lane of a team. One barrier, in a fixed order, as in `lib/sum_chunk.wgsl`.
fn sum_over_team(lane: u32, value: f32) -> f32 {
    team_terms[lane] = value;
    workgroupBarrier();
    var sums = vec4<f32>();
    if lane % LANES == 0u {
        for (var i = lane; i < lane + LANES; i += 4u) {
            sums = add_squares(sums, vec4<f32>(team_terms[i], team_terms[i + 1u], team_terms[i + 2u], team_terms[i + 3u]));
        }
    }
    return total_of(sums);
}

fn total_of(sums: vec4<f32>) -> f32 {
    let halves = add_squares(sums.xzxz, sums.ywyw);
    return add_squares(halves.xxxx, halves.yyyy).x;
}

// Σ g² of the vectors first, first + stride, … of a row of a chunk, which begins at a coordinate of the tensor.
fn sum_row(chunk: Chunk, start: u32, first: u32, stride: u32, s: Scalars) -> f32 {
    let numel = tensors.each[chunk.tensor].numel;
    let end = start + chunk.row_len;
    var squares = vec4<f32>();
    for (var j = start / 4u + first; 4u * j < end; j += stride) {
        let index = vec4<u32>(4u * j) + EACH;
        let vector = (chunk.grad - chunk.index) / 4u + j;
        let read = load_grad(vector, min(4u, numel - 4u * j));
        let inside = (index >= vec4<u32>(start)) & (index < vec4<u32>(end));
        let g = within_squares(clip(select(vec4<f32>(), read, inside), s));
        squares = add_squares(squares, g * g);
    }
    return total_of(squares);
}

fn move_on(chunk: Chunk, r: u32, sum: f32, s: Scalars) {
    let place = chunk.lines + r;
    exp_avg_sq[place] = s.beta2 * exp_avg_sq[place] + s.one_minus_beta2 * (sum / f32(chunk.row_len));
}

@compute @workgroup_size(32)
fn row_moments(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let s = scalars_of(chunk);
        let begin = (chunk.index + chunk.row_len - 1u) / chunk.row_len;
        let end = (chunk.index + chunk.len + chunk.row_len - 1u) / chunk.row_len;
        if chunk.row_len < LONG {
            for (var r = begin + lane; r < end; r += SUM_LANES) {
                let sum = sum_row(chunk, r * chunk.row_len, 0u, 1u, s);
                if !skips() { move_on(chunk, r, sum, s); }
            }
        } else {
            for (var first = begin; first < end; first += SUM_LANES / LANES) {
                let r = first + lane / LANES;
                var own = 0.0;
                if r < end { own = sum_row(chunk, r * chunk.row_len, lane % LANES, LANES, s); }
                let sum = sum_over_team(lane, own);
                if r < end && lane % LANES == 0u && !skips() { move_on(chunk, r, sum, s); }
                workgroupBarrier();
            }
        }
    }
}
