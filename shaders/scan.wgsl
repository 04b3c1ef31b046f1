// The bin that holds the K-th largest key becomes the next digit of the threshold: one workgroup a tensor. When the
// whole bin belongs to the selection, the threshold is known. Leaves the bins cleared for the next histogram.

@compute @workgroup_size(256)
fn scan_exact(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let tensor = grid.first + at;
        let open = tensors.selections[tensor].open == 1u;
        let prefix = tensors.selections[tensor].threshold;
        var populations = take_populations(tensor, lane);
        let own = population(populations);
        let through = scan(lane, own);
        // NaN scores are in no bin: with fewer than K others, all of those are selected.
        let wanted = select(tensors.selections[tensor].remaining, min(tensors.selections[tensor].k, sums[WORKGROUP - 1u]), grid.digit == 0u);
        var before = through - own;
        // What the lanes have read of the selection, one of them overwrites now.
        storageBarrier();
        if open && grid.digit == 0u && lane == 0u {
            atomicStore(&tensors.selections[tensor].selected, wanted);
            if wanted == 0u {
                tensors.selections[tensor].open = 0u;
                tensors.selections[tensor].threshold = 0xffffffffu;
            }
        }
        if open && before < wanted && wanted <= through {
            let bin = highest_bin(lane);
            for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
                if wanted <= before + populations[b] {
                    let shift = select(select(0u, 10u, grid.digit == 1u), 21u, grid.digit == 0u);
                    let found = prefix | ((bin - b) << shift);
                    let whole = wanted - before == populations[b];
                    tensors.selections[tensor].threshold = select(found, found - 1u, whole);
                    tensors.selections[tensor].open = select(1u, 0u, whole);
                    tensors.selections[tensor].remaining = wanted - before;
                    break;
                }
                before += populations[b];
            }
        }
    }
}
