// Counts prove that the bracket holds the K-th largest, and find its bin: one workgroup per tensor. The bins above the
// boundary are selected, and the first `remaining` of the bin at the boundary. Where the bracket missed, a later kernel searches all coordinates.
// Leaves the bins cleared.

import package::lib::find_bin::{find_bin, population, scan, take_populations};
import package::tables::{BINS, Invocation, grid, linear, tensors};

@compute @workgroup_size(256)
fn prove(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let tensor = grid.first + at;
        // A step that is skipped selects nothing.
        let k = select(tensors.each[tensor].k, 0u, tensors.skip == 1u);
        let above = atomicLoad(&tensors.each[tensor].selected);
        let inside = atomicLoad(&tensors.each[tensor].inside);
        // After a cut at key 0 lies only NaN, which is never selected.
        let bottom = tensors.each[tensor].low.key == 0u;
        let holds = above <= k && (k <= above + inside || bottom) && inside <= tensors.each[tensor].capacity;
        let wanted = min(k, above + inside) - above;
        let populations = take_populations(tensors.each[tensor].histogram, lane);
        let found = find_bin(lane, populations, scan(lane, population(populations)), wanted);
        // What the lanes have read of the selection, one of them overwrites now.
        storageBarrier();
        if lane == 0u {
            if !holds {
                miss(tensor);
            } else {
                atomicStore(&tensors.each[tensor].selected, above + wanted);
                if wanted == 0u {
                    tensors.each[tensor].boundary = i32(BINS);
                    tensors.each[tensor].remaining = 0u;
                }
            }
        }
        if holds && found.is_here {
            let whole = wanted == found.before + found.population;
            tensors.each[tensor].boundary = i32(found.bin) - select(0, 1, whole);
            tensors.each[tensor].remaining = select(wanted - found.before, 0u, whole);
            if !whole && found.population > tensors.each[tensor].list_capacity { miss(tensor); }
        }
    }
}

fn miss(tensor: u32) {
    tensors.each[tensor].missed = 1u;
    tensors.each[tensor].remaining = 0u;
}
