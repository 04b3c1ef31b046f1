// The cut behind the rank-th largest of a tensor's sample: digit by digit from histograms of its keys, 11, 11 and 10 bits,
// then by index. One workgroup a cut: the high and the low end of the bracket, or the one cut of approximate selection. An
// end of the bracket may lie a few ranks further out, which saves the last passes over the sample: 22 bits are enough where
// few sampled keys share them. Also forgets what the last step found.

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

var<workgroup> digits: u32;     // of the key of the rank-th largest, as far as they are known
var<workgroup> left: u32;       // its rank among the keys that share them
var<workgroup> same: u32;       // how many keys share them
var<workgroup> place: u32;      // in the sample
var<workgroup> enough: u32;

// Finds the bin that holds the rank sought, and makes it the next digit.
fn narrow(lane: u32, counted: array<u32, 8>, shift: u32) {
    var populations = counted;
    let own = population(populations);
    let through = scan(lane, own);
    let wanted = left;
    let prefix = digits;
    workgroupBarrier();
    var passed = through - own;
    if passed < wanted && wanted <= through {
        for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
            if wanted <= passed + populations[b] {
                digits = prefix | ((highest_bin(lane) - b) << shift);
                left = wanted - passed;
                same = populations[b];
                break;
            }
            passed += populations[b];
        }
    }
    workgroupBarrier();
}

// The next digit: `known` bits lie below the known ones, `shift` below the wanted.
fn next_digit(lane: u32, first: u32, vectors: u32, exists: bool, known: u32, shift: u32) {
    clear_bins(lane);
    let prefix = vec4<u32>(digits >> known);
    let width = (1u << (known - shift)) - 1u;
    if exists {
        for (var j = lane; j < vectors; j += WORKGROUP) {
            let found = samples[first + j];
            let inside = (found >> vec4<u32>(known)) == prefix;
            if any(inside) {
                let next = (found >> vec4<u32>(shift)) & vec4<u32>(width);
                count(next.x, 0u, inside.x);
                count(next.y, 0u, inside.y);
                count(next.z, 0u, inside.z);
                count(next.w, 0u, inside.w);
            }
        }
    }
    workgroupBarrier();
    var populations: array<u32, 8>;
    for (var b = 0u; b < BINS_PER_LANE; b += 1u) {
        populations[b] = atomicLoad(&bins[highest_bin(lane) - b]);
    }
    narrow(lane, populations, shift);
}

fn publish(tensor: u32, bound: u32, cut: Cut) {
    if bound == 0u {
        tensors.each[tensor].high = cut;
        tensors.each[tensor].open = 0u;
        tensors.each[tensor].missed = 0u;
        atomicStore(&tensors.each[tensor].inside, 0u);
        atomicStore(&tensors.each[tensor].listed, 0u);
        atomicStore(&tensors.each[tensor].selected, 0u);
    } else {
        tensors.each[tensor].low = cut;
    }
}

@compute @workgroup_size(256)
fn rank_sample(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count * grid.bounds {
        let tensor = grid.first + at / grid.bounds;
        let bound = at % grid.bounds;
        let rank = select(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low, bound == 1u);
        let first = tensors.each[tensor].sample / 4u;
        let vectors = SECTOR / 4u * tensors.each[tensor].strata;
        if lane == 0u {
            digits = 0u;
            left = rank;
            place = 0u;
        }
        narrow(lane, take_populations(tensors.each[tensor].histogram + bound * BINS, lane), 21u);
        let total = sums[WORKGROUP - 1u];
        let exists = rank > 0u && rank <= total;

        next_digit(lane, first, vectors, exists, 21u, 10u);
        let width = tensors.each[tensor].rank_low - min(tensors.each[tensor].rank_high, tensors.each[tensor].rank_low);
        if lane == 0u {
            // Approximate selection has no second rank, and its width is 0.
            enough = select(0u, 1u, exists && same <= width / 32u);
        }
        if workgroupUniformLoad(&enough) == 1u {
            if lane == 0u {
                // Before all 2^10 keys of the bin, or behind them.
                publish(tensor, bound, Cut(select(digits - 1u, digits + 1023u, bound == 0u), 0u));
            }
            return;
        }
        next_digit(lane, first, vectors, exists, 10u, 0u);

        // The last of those that are tied: consecutive vectors a lane.
        let share = (vectors + WORKGROUP - 1u) / WORKGROUP;
        let end = min((lane + 1u) * share, vectors);
        let threshold = vec4<u32>(digits);
        var tied = 0u;
        if exists {
            for (var j = lane * share; j < end; j += 1u) {
                tied += ones(samples[first + j] == threshold);
            }
        }
        let through = scan(lane, tied);
        var passed = through - tied;
        if exists && passed < left && left <= through {
            for (var p = 4u * lane * share; p < 4u * end; p += 1u) {
                if samples[first + p / 4u][p % 4u] == threshold.x {
                    passed += 1u;
                    if passed == left {
                        place = p;
                    }
                }
            }
        }
        workgroupBarrier();

        if lane == 0u {
            var cut = Cut(0u, 0u);                  // behind all
            if rank == 0u {
                cut = Cut(0xffffffffu, 0u);         // before all
            } else if exists {
                let sector = sampled_sector(tensor, tensors.each[tensor].t, place / SECTOR);
                cut = Cut(digits, SECTOR * sector + place % SECTOR + 1u);
            }
            publish(tensor, bound, cut);
        }
    }
}
