// The cut after the K largest scores of a tensor whose bracket missed, digit by digit: three digits of the key, 11, 11 and 10 bits, then
// three of the tied index, all its bits flipped. When a whole bin is selected, the cut is known.

import package::lib::{bins::count_each, find_bin::{find_bin, population, scan, sums}, order::NAN_KEY};
import package::tables::{Cut, EACH, WORKGROUP, tensors};

const DIGITS: u32 = 6u;

struct Search {
    digit: u32,         // the one to find next; DIGITS if the cut is known
    cut: Cut,           // from the digits so far
    remaining: u32,     // how many are to be selected among those that share them
    selected: u32,      // how many in all
}

var<workgroup> search: Search;

fn begin_search(lane: u32) {
    if lane == 0u { search = Search(0u, Cut(0u, 0u), 0u, 0u); }
    workgroupBarrier();
}

// Counts the next digit of a vector's coordinates, those that share the digits so far.
fn count_digits(sought: Search, found: vec4<u32>, index: u32) {
    let part = sought.digit % 3u;
    let known = vec4<u32>(array<u32, 3>(31u, 21u, 10u)[part]);  // bits below the known digits
    let shift = array<u32, 3>(21u, 10u, 0u)[part];              // bits below the wanted digit
    var value = found;
    var wanted = found != vec4<u32>(NAN_KEY);
    var prefix = vec4<u32>(sought.cut.key);
    if sought.digit >= 3u {
        value = ~(vec4<u32>(index) + EACH);
        wanted &= found == vec4<u32>(sought.cut.key);
        prefix = vec4<u32>(sought.cut.limit);
    }
    wanted &= vec4<bool>(part == 0u) | ((value >> known) == (prefix >> known));
    count_each((value >> vec4<u32>(shift)) & vec4<u32>(select(2047u, 1023u, part == 2u)), 0u, wanted);
}

// The bin that holds the K-th largest becomes the next digit. For all lanes of a workgroup.
fn take_digit(lane: u32, tensor: u32, populations: array<u32, 8>) {
    let known = search;
    let through = scan(lane, population(populations));
    let all = sums[WORKGROUP - 1u];
    // NaN scores are in no bin: with fewer than K others, all of those are selected.
    let is_first = known.digit == 0u;
    let wanted = select(known.remaining, min(tensors.each[tensor].k, all), is_first);
    let selected = select(known.selected, wanted, is_first);
    let bin = find_bin(lane, populations, through, wanted);
    if wanted == 0u {
        if lane == 0u { search = Search(DIGITS, Cut(0xffffffffu, 0u), 0u, 0u); }
    } else if bin.is_here {
        let whole = wanted - bin.before == bin.population;
        let digit = bin.bin << array<u32, 3>(21u, 10u, 0u)[known.digit % 3u];
        var cut = known.cut;
        if known.digit < 3u {
            cut.key |= digit;
            if whole { cut.key -= 1u; }
        } else {
            cut.limit |= digit;
            // Selected are the indices up to ~limit; all of them where that is the last.
            if whole { cut.limit = select(0u - cut.limit, 0xffffffffu, cut.limit == 0u); }
        }
        search = Search(select(known.digit + 1u, DIGITS, whole), cut, wanted - bin.before, selected);
    }
    workgroupBarrier();
}

// What the search has found, for later dispatches.
fn publish_search(tensor: u32) {
    tensors.each[tensor].found = search.cut;
    atomicStore(&tensors.each[tensor].selected, search.selected);
}
