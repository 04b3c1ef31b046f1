// tie_limit: the index behind the last tied coordinate that is still selected, ties going to the lower index. One
// workgroup a tensor of the page: first the chunk in which the count is reached, then the coordinate in it.

@group(2) @binding(0) var<storage, read_write> keys: array<vec4<u32>>;
@group(3) @binding(0) var<storage, read_write> counters: array<atomic<u32>>;

const NOWHERE: u32 = 0xffffffffu;

var<workgroup> boundary: u32;   // the chunk in which the count is reached
var<workgroup> left: u32;       // how many ties that chunk contributes

@compute @workgroup_size(256)
fn locate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let tensor = grid.first + at;
        let open = tensors.selections[tensor].open == 1u;
        let wanted = tensors.selections[tensor].remaining;
        let threshold = vec4<u32>(tensors.selections[tensor].threshold);
        if lane == 0u {
            boundary = NOWHERE;
        }

        let share = (tensors.selections[tensor].chunk_count + WORKGROUP - 1u) / WORKGROUP;
        let first = tensors.selections[tensor].first_chunk + lane * share;
        let end = min(first + share, tensors.selections[tensor].first_chunk + tensors.selections[tensor].chunk_count);
        var own = 0u;
        if open {
            for (var c = first; c < end; c += 1u) {
                own += atomicLoad(&counters[grid.ties + c]);
            }
        }
        let through = scan(lane, own);
        var before = through - own;
        if open && before < wanted && wanted <= through {
            for (var c = first; c < end; c += 1u) {
                let here = atomicLoad(&counters[grid.ties + c]);
                if wanted <= before + here {
                    boundary = c;
                    left = wanted - before;
                    break;
                }
                before += here;
            }
        }
        workgroupBarrier();

        // Sixteen consecutive coordinates a lane, in the chunk, if it lies in this page.
        let mine = boundary >= grid.first_chunk && boundary < grid.first_chunk + grid.chunk_count;
        var sum = 0u;
        if mine {
            let chunk = chunks[boundary];
            for (var j = 4u * lane; j < 4u * lane + 4u && 4u * j < chunk.len; j += 1u) {
                let ones = select(vec4<u32>(0u), vec4<u32>(1u), keys[chunk.offset / 4u + j] == threshold);
                sum += ones.x + ones.y + ones.z + ones.w;
            }
        }
        let reached = scan(lane, sum);
        var passed = reached - sum;
        if mine && passed < left && left <= reached {
            let chunk = chunks[boundary];
            for (var j = 16u * lane; j < 16u * lane + 16u; j += 1u) {
                if keys[(chunk.offset + j) / 4u][j % 4u] == threshold.x {
                    passed += 1u;
                    if passed == left {
                        tensors.selections[tensor].tie_limit = chunk.index + j + 1u;
                    }
                }
            }
        }
    }
}
