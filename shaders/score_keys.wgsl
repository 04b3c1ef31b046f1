// key(u ⊙ g) of every coordinate, and the histogram of the keys' first 11 bits per tensor. The score is computed here
// and nowhere else. Reads the state and leaves it as it is.

@group(2) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;

@compute @workgroup_size(256)
fn score_keys(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    clear_bins(lane);
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let span = chunks[grid.first + at];
        let row = rows[span.row];
        for (var j = lane; 4u * j < span.len; j += WORKGROUP) {
            let lanes = min(4u, span.len - 4u * j);
            let vector = span.offset / 4u + j;
            let g = clip(load_grad(span.grad / 4u + j, lanes));
            let score = update(load_state(vector), g, row).direction * g;
            let inside = vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(lanes);
            let found = select(vec4<u32>(NAN_KEY), key(score), inside);
            keys[vector] = found;
            count(found.x, 21u, found.x != NAN_KEY);
            count(found.y, 21u, found.y != NAN_KEY);
            count(found.z, 21u, found.z != NAN_KEY);
            count(found.w, 21u, found.w != NAN_KEY);
        }
    }
    if at < grid.count {
        flush_bins(lane, tensors.selections[chunks[grid.first + at].tensor].histogram);
    }
}
