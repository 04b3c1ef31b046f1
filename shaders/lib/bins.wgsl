// A histogram of 2,048 bins in workgroup memory, added to the tensor's own bins at the end.

import package::lib::find_bin::{BINS_PER_LANE, highest_bin};
import package::tables::{BINS, WORKGROUP, counters};

var<workgroup> bins: array<atomic<u32>, 2048>;

fn clear_bins(lane: u32) {
    for (var bin = lane; bin < BINS; bin += WORKGROUP) {
        atomicStore(&bins[bin], 0u);
    }
    workgroupBarrier();
}

fn count(found: u32, shift: u32, wanted: bool) {
    if wanted { atomicAdd(&bins[(found >> shift) & (BINS - 1u)], 1u); }
}

fn count_each(found: vec4<u32>, shift: u32, wanted: vec4<bool>) {
    count(found.x, shift, wanted.x);
    count(found.y, shift, wanted.y);
    count(found.z, shift, wanted.z);
    count(found.w, shift, wanted.w);
}

// The lane's 8 bins, from the highest down.
fn counted_populations(lane: u32) -> array<u32, 8> {
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        populations[b] = atomicLoad(&bins[highest_bin(lane) - b]);
    }
    return populations;
}

// To one histogram among the counters, or to two that follow each other.
fn flush_bins(lane: u32, histogram: u32, copies: u32) {
    workgroupBarrier();
    for (var bin = lane; bin < BINS; bin += WORKGROUP) {
        let population = atomicLoad(&bins[bin]);
        if population > 0u {
            atomicAdd(&counters[histogram + bin], population);
            if copies == 2u { atomicAdd(&counters[histogram + BINS + bin], population); }
        }
    }
}
