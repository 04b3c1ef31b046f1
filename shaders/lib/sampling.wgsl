// Which coordinates of a tensor are sampled in a step; `src/recipe/sampling.rs` says why, and is the same on the CPU.

import package::tables::tensors;

const SECTOR: u32 = 4u;     // consecutive coordinates that are sampled together
const STRATA: u32 = 512u;   // that one workgroup samples

fn hash(step: u32, stratum: u32) -> u32 {
    var x = stratum ^ (step * 0x9e3779b9u);
    x = (x ^ (x >> 16u)) * 0x7feb352du;
    x = (x ^ (x >> 15u)) * 0x846ca68bu;
    return x ^ (x >> 16u);
}

// The sector that a step takes of a stratum.
fn sampled_sector(tensor: u32, step: u32, stratum: u32) -> u32 {
    let stride = tensors.each[tensor].stride;
    let begin = stratum * stride;
    return begin + hash(step, stratum) % min(stride, tensors.each[tensor].numel / SECTOR - begin);
}
