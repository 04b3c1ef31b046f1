// A factor of the learning rate for each component: coordinate i of a tensor has the one at i modulo their number.

import package::tables::{Chunk, tensors};

override RATED: bool = false;

@group(0) @binding(4) var<uniform> rates: array<vec4<f32>, 1024>;

fn rate_at(index: u32) -> f32 {
    return rates[index / 4u][index % 4u];
}

fn rate_of(tensor: u32, index: u32) -> f32 {
    if RATED {
        return rate_at(tensors.each[tensor].rates + index % tensors.each[tensor].components);
    }
    return 1.0;
}

fn rates_of(chunk: Chunk, vector: u32) -> vec4<f32> {
    if RATED {
        let first = tensors.each[chunk.tensor].rates;
        let count = tensors.each[chunk.tensor].components;
        let x = (chunk.index + 4u * vector) % count;
        let y = select(x + 1u, 0u, x + 1u == count);
        let z = select(y + 1u, 0u, y + 1u == count);
        let w = select(z + 1u, 0u, z + 1u == count);
        return vec4<f32>(rate_at(first + x), rate_at(first + y), rate_at(first + z), rate_at(first + w));
    }
    return vec4<f32>(1.0);
}
