// The lower halves of masters, where the halves of a word may be those of two lanes.

import package::lib::halves::{packed, unpacked};

@group(1) @binding(6) var<storage, read_write> master_low: array<atomic<u32>>;

fn load_low(place: u32) -> vec4<u32> {
    return unpacked(vec2<u32>(atomicLoad(&master_low[2u * place]), atomicLoad(&master_low[2u * place + 1u])));
}

fn store_low(place: u32, halves: vec4<u32>) {
    let words = packed(halves);
    atomicStore(&master_low[2u * place], words.x);
    atomicStore(&master_low[2u * place + 1u], words.y);
}
