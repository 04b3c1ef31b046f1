// A histogram of 2,048 bins in workgroup memory, added to the tensor's own bins at the end.

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
