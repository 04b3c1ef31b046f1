// S ← a I + b L + c S below the diagonal, and its mirror image above it; S as it is where it is not a polynomial yet. An invocation has four
// rows and columns, and those they mirror.

import package::matrix::products::{four, lower, result, store};
import package::tables::{EACH, Invocation, chunks, grid, linear_block, scalars};

fn four_of_result(first: u32, stride: u32) -> mat4x4<f32> {
    return mat4x4<f32>(result[first], result[first + stride], result[first + 2u * stride], result[first + 3u * stride]);
}

@compute @workgroup_size(64)
fn mirror(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let matrix = chunks[grid.first + in.workgroup.y];
    let ns = scalars[matrix.scalars].ns[grid.iteration];
    let down = (grid.m + 3u) / 4u;
    let b = linear_block(in) * 64u + lane;
    if b < down * (down + 1u) / 2u {
        let block = lower(b, down);
        let stride = grid.gram_stride;
        let base = matrix.part * grid.result_slot;
        let at = base + 4u * block.x * stride + block.y;
        var tile = four_of_result(at, stride);
        if grid.polynomial == 1u {
            let linear = four(matrix.part * grid.left_slot + 4u * block.x * stride + block.y, stride);
            tile = ns.y * linear + ns.z * tile;
            if block.x == block.y {
                let i = 4u * block.x + EACH;
                // Not in the padding, which stays zero.
                let a = select(vec4<f32>(), vec4<f32>(ns.x), i < vec4<u32>(grid.m));
                tile += mat4x4<f32>(
                    vec4<f32>(a.x, 0.0, 0.0, 0.0),
                    vec4<f32>(0.0, a.y, 0.0, 0.0),
                    vec4<f32>(0.0, 0.0, a.z, 0.0),
                    vec4<f32>(0.0, 0.0, 0.0, a.w),
                );
            }
            store(base, stride, 4u * block.x, block.y, 4u * down, down, tile);
        }
        if block.x != block.y {
            store(base, stride, 4u * block.y, block.x, 4u * down, down, transpose(tile));
        }
    }
}
