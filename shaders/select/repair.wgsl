// Finishes the candidates whose bin decides, and lists those of the bin at the boundary.

import package::finish::finish;
import package::lib::{bracket::{bin_of, bracket_of}, candidates::{lies_in, read_candidate}, skip::scalars_of};
import package::tables::{Invocation, WORKGROUP, chunks, counters, grid, linear, tensors};

@compute @workgroup_size(256)
fn repair(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let piece = chunks[grid.first + at];
        let s = scalars_of(piece);
        let tensor = piece.tensor;
        let bracket = bracket_of(tensor);
        let boundary = tensors.each[tensor].boundary;
        let partly = tensors.each[tensor].remaining > 0u;
        let candidates = tensors.each[tensor].candidates;
        let count = select(atomicLoad(&tensors.each[tensor].inside), 0u, tensors.each[tensor].missed == 1u);
        let part = piece.part + piece.parts * in.workgroup.z;
        let parts = piece.parts * in.workgroups.z;
        for (var slot = WORKGROUP * part + lane; slot < count; slot += WORKGROUP * parts) {
            let candidate = read_candidate(candidates, slot);
            if lies_in(piece, candidate) {
                let bin = i32(bin_of(bracket, candidate.key, candidate.index));
                if bin == boundary && partly {
                    let listed = atomicAdd(&tensors.each[tensor].listed, 1u);
                    atomicStore(&counters[tensors.each[tensor].list + listed], slot);
                } else {
                    finish(piece, s, candidate, bin > boundary);
                }
            }
        }
    }
}
