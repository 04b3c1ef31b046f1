// Random bits of coordinates, which follow from the step, the name of the tensor and the coordinate. `seed` sets what is rounded apart.

import package::lib::sampling::hash;
import package::tables::tensors;

fn noise_of(tensor: u32, index: vec4<u32>, step: u32, seed: u32) -> vec4<u32> {
    let of_step = hash(step, tensors.each[tensor].identity) ^ seed;
    return vec4<u32>(hash(of_step, index.x), hash(of_step, index.y), hash(of_step, index.z), hash(of_step, index.w));
}
