// The coordinates between two cuts, and the 2,048 bins that they fall into: a higher bin is selected first. Ties at the keys of the two
// cuts, mostly zeros, fall into bins by index, 512 each; the keys between them fall into 1,024 bins.

import package::tables::{BINS, Cut, tensors};

const TIED_BINS: u32 = 512u;

struct Bracket {
    high: Cut,
    low: Cut,
    numel: u32,
    high_shift: u32,    // a bin of the ties at the high key holds 2^shift indices
    key_shift: u32,     // a bin between holds 2^shift keys
    low_shift: u32,
}

// The shift that makes numbers below `width` shorter than `bits`.
fn shift_to(width: u32, bits: u32) -> u32 {
    return max(32u - countLeadingZeros(max(width, 1u) - 1u), bits) - bits;
}

fn bracket_of(tensor: u32) -> Bracket {
    let high = tensors.each[tensor].high;
    let low = tensors.each[tensor].low;
    let numel = tensors.each[tensor].numel;
    let low_ties = low.limit - select(0u, high.limit, high.key == low.key);
    return Bracket(
        high,
        low,
        numel,
        shift_to(numel - min(high.limit, numel), 9u),
        shift_to(high.key - low.key, 10u),
        shift_to(low_ties, 9u),
    );
}

// A key that was rounded onto a cut's may come with an index that the cut does not tie: the nearest bin takes it.
fn bin_of(bracket: Bracket, found: u32, index: u32) -> u32 {
    let between = TIED_BINS + ((found - bracket.low.key - 1u) >> bracket.key_shift);
    let at_high = BINS - TIED_BINS + min((bracket.numel - 1u - index) >> bracket.high_shift, TIED_BINS - 1u);
    let at_low = min((bracket.low.limit - 1u - index) >> bracket.low_shift, TIED_BINS - 1u);
    return select(select(between, at_high, found == bracket.high.key), at_low, found == bracket.low.key);
}

// The lowest key that a bin may hold, and how many bits of it the bin leaves open.
struct BinKeys {
    lowest: u32,
    open_bits: u32,
}

fn keys_of(bracket: Bracket, bin: u32) -> BinKeys {
    if bin < TIED_BINS { return BinKeys(bracket.low.key, 0u); }
    if bin >= BINS - TIED_BINS { return BinKeys(bracket.high.key, 0u); }
    return BinKeys(bracket.low.key + 1u + ((bin - TIED_BINS) << bracket.key_shift), bracket.key_shift);
}

// A candidate's key was between the cuts when the stream decided so, and may be a rounding off when computed again.
fn within(bracket: Bracket, found: u32) -> u32 {
    return clamp(found, bracket.low.key, bracket.high.key);
}
