// How many keys of each chunk equal the threshold, for the tensors whose threshold is still open after the last digit.

@group(2) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;
@group(3) @binding(0) var<storage, read_write> counters: array<atomic<u32>>;

var<workgroup> tied: atomic<u32>;

@compute @workgroup_size(256)
fn ties(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    if lane == 0u {
        atomicStore(&tied, 0u);
    }
    workgroupBarrier();
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        if tensors.selections[chunk.tensor].open == 1u {
            let threshold = vec4<u32>(tensors.selections[chunk.tensor].threshold);
            var sum = vec4<u32>(0u);
            for (var j = lane; 4u * j < chunk.len; j += WORKGROUP) {
                sum += select(vec4<u32>(0u), vec4<u32>(1u), keys[chunk.offset / 4u + j] == threshold);
            }
            atomicAdd(&tied, sum.x + sum.y + sum.z + sum.w);
        }
    }
    workgroupBarrier();
    if lane == 0u && at < grid.count {
        atomicStore(&counters[grid.ties + grid.first + at], atomicLoad(&tied));
    }
}
