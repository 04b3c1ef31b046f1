// Where the direction is orthogonalised first: it is stored, and what is decided goes into a mask of one bit a coordinate.

@group(2) @binding(0) var<storage, read_write> mask: array<atomic<u32>>;

fn begin(chunk: Chunk, lane: u32) {
    if lane < LANES {
        for (var j = lane; 4u * j < chunk.len; j += 8u * LANES) {
            atomicStore(&mask[mask_word(chunk, j)], 0u);
        }
    }
    storageBarrier();
}

fn take(chunk: Chunk, vector: u32, row: Row, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    directions[chunk.offset / 4u + vector] = direction;
    let nibble = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), selected);
    atomicOr(&mask[mask_word(chunk, vector)], (nibble.x | nibble.y | nibble.z | nibble.w) << mask_shift(vector));
}
