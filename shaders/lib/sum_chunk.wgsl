// Σ over a chunk. A lane adds up every 32nd vector of its part, four of them at a time: the whole chunk on a CPU, an eighth of it on a GPU.
// Both shapes add in the same order, so that they give the same bits.

import package::tables::{CHUNK, Chunk, LANES, tensors};

const SUM_LANES: u32 = 32u;     // 256 on a GPU: `Config::find` replaces it.
const PART: u32 = CHUNK / 4u / (SUM_LANES / LANES);     // vectors

var<workgroup> parts: array<f32, SUM_LANES>;
var<workgroup> terms: array<f32, 32>;

struct Sum {
    done: f32,
    open: vec4<f32>,    // up to four vectors
}

// A lane's first vector, and the end of its part.
fn range_of(chunk: Chunk, lane: u32) -> vec2<u32> {
    let first = lane / LANES * PART;
    return vec2<u32>(first + lane % LANES, min(first + PART, (chunk.len + 3u) / 4u));
}

// A chunk's place among all of them.
fn place_of(chunk: Chunk) -> u32 {
    return tensors.each[chunk.tensor].first_chunk + chunk.index / CHUNK;
}

fn total(x: vec4<f32>) -> f32 {
    return (x.x + x.y) + (x.z + x.w);
}

fn add_vector(sum: Sum, vector: u32, x: vec4<f32>) -> Sum {
    let open = sum.open + x;
    if vector / LANES % 4u == 3u { return Sum(sum.done + total(open), vec4<f32>()); }
    return Sum(sum.done, open);
}

// Valid in the first lane. Few barriers, because every lane waits at each.
fn sum_over_chunk(lane: u32, own: Sum) -> f32 {
    var sum = own.done + total(own.open);
    if SUM_LANES > LANES {
        parts[lane] = sum;
        workgroupBarrier();
        sum = 0.0;
        if lane < LANES {
            for (var part = lane; part < SUM_LANES; part += LANES) {
                sum += parts[part];
            }
        }
    }
    if lane < LANES { terms[lane] = sum; }
    workgroupBarrier();
    var all = vec4<f32>();
    if lane == 0u {
        for (var i = 0u; i < LANES; i += 4u) {
            all += vec4<f32>(terms[i], terms[i + 1u], terms[i + 2u], terms[i + 3u]);
        }
    }
    return total(all);
}
