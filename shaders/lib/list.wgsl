// The list of a tensor's candidates, as a stream fills it.

import package::lib::{bracket::{Bracket, bin_of, bracket_of, within}, candidates::{Candidate, write_candidate}};
import package::tables::{counters, tensors};

struct List {
    first: u32,
    capacity: u32,
    histogram: u32,
    bracket: Bracket,
}

fn list_of(tensor: u32) -> List {
    let of_tensor = bracket_of(tensor);
    return List(tensors.each[tensor].candidates, tensors.each[tensor].capacity, tensors.each[tensor].histogram, of_tensor);
}

// Adds the candidates of a vector, one for each flag, from a slot on, and counts their bins. `index` is that of its first coordinate.
fn append(list: List, first_slot: u32, index: u32, flags: u32, found: vec4<u32>, direction: vec4<f32>) {
    var slot = first_slot;
    for (var rest = flags; rest != 0u; rest &= rest - 1u) {
        if slot < list.capacity {
            let c = firstTrailingBit(rest);
            let candidate = Candidate(index + c, within(list.bracket, found[c]), direction[c]);
            write_candidate(list.first, slot, candidate);
            atomicAdd(&counters[list.histogram + bin_of(list.bracket, candidate.key, candidate.index)], 1u);
        }
        slot += 1u;
    }
}
