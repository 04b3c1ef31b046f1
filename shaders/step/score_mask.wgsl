// mask = 1[u ⊙ g > 0] as bits, and their number per tensor. Reads the state and leaves it as it is.

import package::next::next_of;
import package::lib::{coupled::coupled, gradients::read_grad, mark::{begin_marks, end_marks, mark}, order::{ZERO_KEY, key}, skip::{chunk_at, scalars_of}};
import package::tables::{Invocation, LANES, grid, linear};

@compute @workgroup_size(32)
fn score_mask(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        begin_marks(lane);
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let g = read_grad(chunk, j, s);
            let score = next_of(chunk, chunk.offset / 4u + j, coupled(g, chunk, j, s), s).direction * g;
            mark(key(score) > vec4<u32>(ZERO_KEY), chunk, j);
        }
        end_marks(chunk, lane);
    }
}
