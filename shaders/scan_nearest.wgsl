// Approximate selection: the threshold is the nearer edge of the bin that holds the K-th largest key, so that
// |selected − K| is at most half of the bin's population. One workgroup a tensor; leaves the bins cleared.

@compute @workgroup_size(256)
fn scan_nearest(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let tensor = grid.first + at;
        var populations = take_populations(tensor, lane);
        let own = population(populations);
        let through = scan(lane, own);
        let wanted = min(tensors.selections[tensor].k, sums[WORKGROUP - 1u]);
        var before = through - own;
        if wanted == 0u && lane == 0u {
            tensors.selections[tensor].threshold = 0xffffffffu;
            atomicStore(&tensors.selections[tensor].selected, 0u);
        }
        if before < wanted && wanted <= through {
            let bin = highest_bin(lane);
            for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
                let after = before + populations[b];
                if wanted <= after {
                    let with_bin = after - wanted <= wanted - before;
                    let edge = select(bin - b + 1u, bin - b, with_bin) << 21u;
                    tensors.selections[tensor].threshold = edge - 1u;
                    atomicStore(&tensors.selections[tensor].selected, select(before, after, with_bin));
                    break;
                }
                before = after;
            }
        }
    }
}
