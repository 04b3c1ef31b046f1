// The bin that holds the K-th largest becomes the next digit of the cut of a tensor whose bracket missed: of the key in rounds 1 to 3, of
// the tied index, all its bits flipped, in rounds 4 to 6. When the whole bin is selected, the cut is known. One workgroup per tensor;
// leaves the bins cleared.

import package::lib::find_bin::{find_bin, population, scan, sums, take_populations};
import package::tables::{Cut, WORKGROUP, grid, tensors};

var<workgroup> work: u32;

@compute @workgroup_size(256)
fn scan_bins(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    // Launched indirectly, where some drivers do not know the number of workgroups.
    let at = workgroup.y * grid.launch_x + workgroup.x;
    let tensor = grid.first + at;
    if lane == 0u {
        work = 0u;
        if at < grid.count { work = tensors.each[tensor].open; }
    }
    if workgroupUniformLoad(&work) == 0u { return; }
    let round = tensors.each[tensor].open - 1u;
    let populations = take_populations(tensors.each[tensor].histogram, lane);
    let through = scan(lane, population(populations));
    let all = sums[WORKGROUP - 1u];
    let cut = tensors.each[tensor].found;
    // NaN scores are in no bin: with fewer than K others, all of those are selected.
    let wanted = select(tensors.each[tensor].remaining, min(tensors.each[tensor].k, all), round == 0u);
    let bin = find_bin(lane, populations, through, wanted);
    // What the lanes have read of the selection, one of them overwrites now.
    storageBarrier();
    if round == 0u && lane == 0u {
        atomicStore(&tensors.each[tensor].selected, wanted);
        if wanted == 0u {
            tensors.each[tensor].open = 0u;
            tensors.each[tensor].found = Cut(0xffffffffu, 0u);
        }
    }
    if bin.is_here {
        let whole = wanted - bin.before == bin.population;
        let digit = bin.bin << array<u32, 3>(21u, 10u, 0u)[round % 3u];
        if round < 3u {
            let digits = cut.key | digit;
            tensors.each[tensor].found = Cut(select(digits, digits - 1u, whole), 0u);
        } else {
            let digits = cut.limit | digit;
            // Selected are the indices up to ~digits; all of them where that is the last.
            let limit = select(0u - digits, 0xffffffffu, digits == 0u);
            tensors.each[tensor].found = Cut(cut.key, select(digits, limit, whole));
        }
        tensors.each[tensor].open = select(round + 2u, 0u, whole);
        tensors.each[tensor].remaining = wanted - bin.before;
    }
}
