// The histogram of the keys' next digit, over the keys that share the digits found so far: 11, 11 and 10 bits.

@group(2) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;

@compute @workgroup_size(256)
fn histogram(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    clear_bins(lane);
    let at = linear(workgroup, workgroups);
    let known = select(10u, 21u, grid.digit == 1u);     // bits below the known digits
    let shift = select(0u, 10u, grid.digit == 1u);      // bits below the wanted digit
    let width = select(1023u, 2047u, grid.digit == 1u);
    if at < grid.count {
        let span = chunks[grid.first + at];
        if tensors.selections[span.tensor].open == 1u {
            let prefix = tensors.selections[span.tensor].threshold >> known;
            for (var j = lane; 4u * j < span.len; j += WORKGROUP) {
                let found = keys[span.offset / 4u + j];
                let inside = (found >> vec4<u32>(known)) == vec4<u32>(prefix);
                if any(inside) {
                    let digits = (found >> vec4<u32>(shift)) & vec4<u32>(width);
                    count(digits.x, 0u, inside.x);
                    count(digits.y, 0u, inside.y);
                    count(digits.z, 0u, inside.z);
                    count(digits.w, 0u, inside.w);
                }
            }
        }
    }
    if at < grid.count {
        flush_bins(lane, tensors.selections[chunks[grid.first + at].tensor].histogram);
    }
}
