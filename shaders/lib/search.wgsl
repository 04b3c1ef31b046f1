// The cut after the largest of some scores, digit by digit: three digits of the key, 11, 11 and 10 bits, then three of the tied index, all
// its bits flipped. The scores are those of a sample; of the candidates in one bin; or, after a miss, of a whole tensor.

import package::lib::{bins::count_each, find_bin::{find_bin, population, scan, sums}, order::NAN_KEY};
import package::tables::{Cut, WORKGROUP, tensors};

const DIGITS: u32 = 6u;
const SHORT: u32 = 0x200000u;   // indices below this need no first digit

struct Search {
    digit: u32,         // the one to find next; DIGITS if the cut is known
    cut: Cut,           // from the digits so far
    remaining: u32,     // how many are to be selected among those that share them
    same: u32,          // how many share them
    selected: u32,      // how many in all
}

var<workgroup> search: Search;

// Seeks the cut after this many scores, whose keys lie between these two.
fn begin_search(lane: u32, wanted: u32, lowest: u32, highest: u32) {
    if lane == 0u {
        let open = 32u - countLeadingZeros(lowest ^ highest);
        let digit = select(select(0u, 1u, open <= 21u), select(2u, 3u, open == 0u), open <= 10u);
        let key = lowest & array<u32, 4>(0u, 0xffe00000u, 0xfffffc00u, 0xffffffffu)[digit];
        search = Search(digit, Cut(key, 0u), wanted, 0u, 0u);
    }
    workgroupBarrier();
}

// The bits below a digit.
fn bits_below(digit: u32) -> u32 {
    return select(select(21u, 10u, digit % 3u == 1u), 0u, digit % 3u == 2u);
}

// Counts the next digit of four coordinates, those that share the digits so far.
fn count_digits(sought: Search, found: vec4<u32>, index: vec4<u32>) {
    let below = bits_below(sought.digit);
    let known = vec4<u32>(min(below + select(11u, 10u, below == 0u), 31u));    // bits below the known digits
    let is_first = vec4<bool>(below == 21u);
    let of_keys = vec4<bool>(sought.digit < 3u);
    let value = select(~index, found, of_keys);
    let prefix = select(vec4<u32>(sought.cut.limit), vec4<u32>(sought.cut.key), of_keys);
    let shares = is_first | ((value >> known) == (prefix >> known));
    let wanted = select(found == vec4<u32>(sought.cut.key), found != vec4<u32>(NAN_KEY), of_keys) & shares;
    count_each((value >> vec4<u32>(below)) & vec4<u32>(select(2047u, 1023u, below == 0u)), 0u, wanted);
}

// The bin that holds the last one to be selected becomes the next digit, of keys or of indices below `numel`. Once the key is known, a whole
// bin ends the search, unless the index has to be that of the last one selected. For all lanes of a workgroup.
fn take_digit(lane: u32, populations: array<u32, 8>, numel: u32, is_exact: bool) {
    let known = search;
    let through = scan(lane, population(populations));
    // NaN scores are in no bin: with too few others, all of those are selected.
    let wanted = min(known.remaining, sums[WORKGROUP - 1u]);
    let selected = select(known.selected, wanted, known.digit == 0u);
    let bin = find_bin(lane, populations, through, wanted);
    if wanted == 0u {
        if lane == 0u { search = Search(DIGITS, Cut(0xffffffffu, 0u), 0u, 0u, 0u); }
    } else if bin.is_here {
        let digit = bin.bin << bits_below(known.digit);
        let rest = wanted - bin.before;
        let ends = rest == bin.population && known.digit >= select(2u, DIGITS - 1u, is_exact);
        var cut = known.cut;
        var next = known.digit + 1u;
        if known.digit < 3u {
            cut.key |= digit;
            if ends {
                cut.limit = 0xffffffffu;
            } else if next == 3u && numel <= SHORT {
                cut.limit = 0u - SHORT;
                next = 4u;
            }
        } else {
            cut.limit |= digit;
            // Selected are the indices up to ~limit; all of them where that is the last.
            if ends { cut.limit = select(0u - cut.limit, 0xffffffffu, cut.limit == 0u); }
        }
        search = Search(select(next, DIGITS, ends), cut, rest, bin.population, selected);
    }
    workgroupBarrier();
}

// What the search has found, for later dispatches.
fn publish_search(tensor: u32) {
    tensors.each[tensor].found = search.cut;
    atomicStore(&tensors.each[tensor].selected, search.selected);
}
