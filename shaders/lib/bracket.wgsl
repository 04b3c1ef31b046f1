// The coordinates between two cuts, and the 2,048 bins that they fall into: a higher bin is selected first. Between two
// cuts of one key, the coordinates are tied and the bins are ranges of indices; else the bins are ranges of keys.

struct Bracket {
    by_index: bool,
    low: u32,       // the lowest key, or the index behind the last
    shift: u32,     // a bin holds 2^shift keys, or indices
    lowest: u32,    // keys
    highest: u32,
}

fn bracket_of(tensor: u32) -> Bracket {
    let high = tensors.selections[tensor].high;
    let low = tensors.selections[tensor].low;
    let by_index = high.key == low.key;
    let width = select(high.key - low.key, low.limit - high.limit, by_index);
    let bits = 32u - countLeadingZeros(width);
    return Bracket(by_index, select(low.key, low.limit, by_index), max(bits, 11u) - 11u, low.key, high.key);
}

fn bin_of(bracket: Bracket, found: u32, index: u32) -> u32 {
    return select(found - bracket.low, bracket.low - 1u - index, bracket.by_index) >> bracket.shift;
}

// A candidate's key was between the cuts when the stream decided so, and may be a rounding off when computed anew.
fn within(bracket: Bracket, found: u32) -> u32 {
    return clamp(found, bracket.lowest, bracket.highest);
}
