// mask = 1[u ⊙ g > 0] as bits, and their number per tensor. Reads the state and leaves it as it is.

@group(2) @binding(0) var<storage, read_write> mask: array<u32>;

var<workgroup> positive: atomic<u32>;

@compute @workgroup_size(32)
fn score_mask(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if lane == 0u {
        atomicStore(&positive, 0u);
    }
    workgroupBarrier();
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let row = row_of(chunk);
        var bits = 0u;
        var ones = 0u;
        for (var j = lane; 4u * j < chunk.len; j += LANES) {
            let lanes = min(4u, chunk.len - 4u * j);
            let vector = chunk.offset / 4u + j;
            let g = clip(load_grad(chunk.grad / 4u + j, lanes), row);
            let score = update(load_state(chunk, vector), g, row).direction * g;
            let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(lanes);
            let found = (key(score) > vec4<u32>(ZERO_KEY)) & inside;
            let nibble = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), found);
            bits |= (nibble.x | nibble.y | nibble.z | nibble.w) << mask_shift(j);
            // The last vector of this word, or of the lane.
            if mask_shift(j) == 28u || 4u * (j + LANES) >= chunk.len {
                mask[mask_word(chunk, j)] = bits;
                ones += countOneBits(bits);
                bits = 0u;
            }
        }
        atomicAdd(&positive, ones);
    }
    workgroupBarrier();
    if lane == 0u && at < grid.count {
        atomicAdd(&tensors.each[chunks[grid.first + at].tensor].selected, atomicLoad(&positive));
    }
}
