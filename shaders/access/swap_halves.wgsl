// Parameters in bf16 change places with averages in bf16. The lower halves of masters stay.

import package::access::{average::param_average, bits::{load_bits, store_bits}};
import package::lib::halves::{packed, unpacked};
import package::tables::Chunk;

fn swap(chunk: Chunk, vector: u32, lanes: u32) {
    let place = chunk.offset / 4u + vector;
    let theta = load_bits(chunk, vector, lanes);
    store_bits(chunk, vector, lanes, unpacked(param_average[place]));
    param_average[place] = packed(theta);
}
