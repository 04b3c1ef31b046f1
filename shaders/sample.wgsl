// key(u ⊙ g) of the coordinates that this step samples, and the histogram of the keys' first 11 bits. Nothing is decided
// from these scores but where to look: a later kernel may round them differently.

@group(2) @binding(0) var<storage, read_write> samples: array<vec4<u32>>;

@compute @workgroup_size(256)
fn sample(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    clear_bins(lane);
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let piece = chunks[grid.first + at];
        let row = row_of(piece);
        let stride = tensors.each[piece.tensor].stride;
        let first = piece.index / (SECTOR * stride) + STRATA * piece.part;
        let end = min(first + STRATA, tensors.each[piece.tensor].strata);
        for (var stratum = first + lane; stratum < end; stratum += WORKGROUP) {
            let inside = SECTOR * sampled_sector(piece.tensor, row.t, stratum) - piece.index;
            if inside < piece.len {
                let g = clip(load_grad((piece.grad + inside) / 4u, 4u), row);
                let found = key(update(load_state(piece, (piece.offset + inside) / 4u), g, row).direction * g);
                samples[tensors.each[piece.tensor].sample / 4u + stratum] = found;
                count(found.x, 21u, found.x != NAN_KEY);
                count(found.y, 21u, found.y != NAN_KEY);
                count(found.z, 21u, found.z != NAN_KEY);
                count(found.w, 21u, found.w != NAN_KEY);
            }
        }
        if piece.index == 0u && piece.part == 0u && lane == 0u {
            tensors.each[piece.tensor].t = row.t;
        }
    }
    workgroupBarrier();
    if at < grid.count {
        // A copy for each cut. No loop over a uniform: some drivers compile a kernel anew for each value that it has.
        let tensor = chunks[grid.first + at].tensor;
        let copies = select(1u, 2u, tensors.each[tensor].rank_low > 0u);
        flush_bins(lane, tensors.each[tensor].histogram, copies);
    }
}
