// A mask of one bit a coordinate, and how many it has in a tensor.

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

var<workgroup> marked: atomic<u32>;
var<private> bits: u32;
var<private> counted: u32;

fn mark_found(found: vec4<bool>, chunk: Chunk, vector: u32) {
    let inside = 4u * vector + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(chunk.len);
    let nibble = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), found & inside);
    bits |= (nibble.x | nibble.y | nibble.z | nibble.w) << mask_shift(vector);
    // The last vector of this word, or of the lane.
    if mask_shift(vector) == 28u || 4u * (vector + LANES) >= chunk.len {
        mask[mask_word(chunk, vector)] = bits;
        counted += countOneBits(bits);
        bits = 0u;
    }
}

fn conclude(chunk: Chunk, lane: u32) {
    if lane == 0u {
        atomicStore(&marked, 0u);
    }
    workgroupBarrier();
    atomicAdd(&marked, counted);
    workgroupBarrier();
    if lane == 0u {
        atomicAdd(&tensors.each[chunk.tensor].selected, atomicLoad(&marked));
    }
}
