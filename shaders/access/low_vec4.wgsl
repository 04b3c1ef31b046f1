// The lower halves of masters, four coordinates at a time.

import package::lib::halves::{packed, unpacked};

@group(1) @binding(6) var<storage, read_write> master_low: array<vec2<u32>>;

fn load_low(place: u32) -> vec4<u32> {
    return unpacked(master_low[place]);
}

fn store_low(place: u32, halves: vec4<u32>) {
    master_low[place] = packed(halves);
}
