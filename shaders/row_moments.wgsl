// v ← β2 v + (1−β2) mean(g²) of every row that begins in a chunk: a lane a short row, all lanes a long one.

@group(1) @binding(3) var<storage, read_write> exp_avg_sq: array<f32>;

const LONG: u32 = 128u;

// Σ g² of the vectors first, first + stride, … of a row of a chunk, which begins at a coordinate of the tensor.
fn sum_row(chunk: Chunk, start: u32, first: u32, stride: u32, row: Row) -> f32 {
    let numel = tensors.each[chunk.tensor].numel;
    let end = start + chunk.row_len;
    var squares = vec4<f32>();
    for (var j = start / 4u + first; 4u * j < end; j += stride) {
        let index = vec4<u32>(4u * j) + vec4<u32>(0u, 1u, 2u, 3u);
        let vector = (chunk.grad - chunk.index) / 4u + j;
        let read = load_grad(vector, min(4u, numel - 4u * j));
        let inside = (index >= vec4<u32>(start)) & (index < vec4<u32>(end));
        let g = clip(select(vec4<f32>(), read, inside), row);
        squares += g * g;
    }
    return (squares.x + squares.y) + (squares.z + squares.w);
}

fn move_on(chunk: Chunk, r: u32, sum: f32, row: Row) {
    let place = chunk.rows + r;
    exp_avg_sq[place] = row.beta2 * exp_avg_sq[place] + row.one_minus_beta2 * (sum / f32(chunk.row_len));
}

@compute @workgroup_size(32)
fn row_moments(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let at = linear(workgroup, workgroups);
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let row = row_of(chunk);
        let begin = (chunk.index + chunk.row_len - 1u) / chunk.row_len;
        let end = (chunk.index + chunk.len + chunk.row_len - 1u) / chunk.row_len;
        if chunk.row_len < LONG {
            for (var r = begin + lane; r < end; r += LANES) {
                let sum = sum_row(chunk, r * chunk.row_len, 0u, 1u, row);
                if !skips() {
                    move_on(chunk, r, sum, row);
                }
            }
        } else {
            for (var r = begin; r < end; r += 1u) {
                let sum = sum_over_lanes(lane, sum_row(chunk, r * chunk.row_len, lane, LANES, row));
                if lane == 0u && !skips() {
                    move_on(chunk, r, sum, row);
                }
                workgroupBarrier();
            }
        }
    }
}
