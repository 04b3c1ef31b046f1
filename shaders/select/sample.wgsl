// key(u ⊙ g) of the coordinates that this step samples, and the histogram of the keys' first 11 bits. Nothing is decided from these scores
// but where to look: a later kernel may round them differently.

import package::{access::grad::load_grad, next::next_of};
import package::lib::{bins::{clear_bins, count_each, flush_bins}, coupled::coupled, gradients::clip, order::{NAN_KEY, key}};
import package::lib::{sampling::{SECTOR, STRATA, sampled_sector}, skip::scalars_of};
import package::tables::{Invocation, WORKGROUP, chunks, grid, linear, tensors};

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

@compute @workgroup_size(256)
fn sample(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    clear_bins(lane);
    let at = linear(in);
    if at < grid.count {
        let piece = chunks[grid.first + at];
        let s = scalars_of(piece);
        let stride = tensors.each[piece.tensor].stride;
        let first = piece.index / (SECTOR * stride) + STRATA * piece.part;
        let end = min(first + STRATA, tensors.each[piece.tensor].strata);
        for (var stratum = first + lane; stratum < end; stratum += WORKGROUP) {
            let inside = SECTOR * sampled_sector(piece.tensor, s.t, stratum) - piece.index;
            if inside < piece.len {
                let g = clip(load_grad((piece.grad + inside) / 4u, 4u), s);
                let entering = coupled(g, piece, inside / 4u, s);
                let found = key(next_of(piece, (piece.offset + inside) / 4u, entering, s).direction * g);
                samples[tensors.each[piece.tensor].sample / 4u + stratum] = found;
                count_each(found, 21u, found != vec4<u32>(NAN_KEY));
            }
        }
        if piece.index == 0u && piece.part == 0u && lane == 0u {
            tensors.each[piece.tensor].t = s.t;
        }
    }
    workgroupBarrier();
    if at < grid.count {
        // A copy for each cut. No loop over a uniform: some drivers compile a kernel again for each value that it has.
        let tensor = chunks[grid.first + at].tensor;
        let copies = select(1u, 2u, tensors.each[tensor].rank_low > 0u);
        flush_bins(lane, tensors.each[tensor].histogram, copies);
    }
}
