// Parameters in f32, or their masters, change places with averages in f32.

import package::access::{average::{load_average, param_average}, param::{load_param, store_param}};
import package::tables::Chunk;

fn swap(chunk: Chunk, vector: u32, lanes: u32) {
    let place = chunk.offset / 4u + vector;
    let theta = load_param(chunk, vector, lanes);
    store_param(chunk, vector, lanes, load_average(place));
    param_average[place] = theta;
}
