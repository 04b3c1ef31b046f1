// Single parameters, or masters, whose neighbors in a vector may be another lane's.

import package::access::param::param;
import package::tables::Scalars;

fn load_single(at: u32) -> f32 {
    return param[at];
}

fn store_single(tensor: u32, index: u32, at: u32, value: f32, s: Scalars) {
    param[at] = value;
}
