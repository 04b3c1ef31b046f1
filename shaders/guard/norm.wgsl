// Σ g² of every chunk, with the sign bit set; 0 stands for chunks that a step leaves out. NaN if the exponent of a gradient shows that it
// is not finite. If the sum of finite ones overflows, Σ (2⁻⁹⁶ g)² without the sign bit.

import package::access::grad::load_grad;
import package::lib::{far::{EXPONENT, FAR, PRESENT}, gradients::{clip, scaled}};
import package::lib::sum_chunk::{Sum, add_vector, place_of, range_of, sum_over_chunk, total};
import package::tables::{Chunk, EACH, Invocation, LANES, Scalars, chunks, counters, grid, linear, scalars};

const NOT_FINITE: u32 = 0xffffffffu;
const MAGNITUDE: u32 = 0x7fffffffu;
// 3.4e38: scaling may be rounded in another way where the step scales.
const LARGEST: u32 = 0x7f7fc99eu;

var<workgroup> broken: atomic<u32>;

fn is_above(x: vec4<f32>, largest: u32) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(MAGNITUDE)) > vec4<u32>(largest);
}

// A vector of a chunk, 0 beyond its end.
fn read_inside(chunk: Chunk, vector: u32) -> vec4<f32> {
    let lanes = min(4u, chunk.len - 4u * vector);
    let inside = EACH < vec4<u32>(lanes);
    return select(vec4<f32>(), load_grad(chunk.grad / 4u + vector, lanes), inside);
}

// By one lane: it is rare.
fn far_squares(chunk: Chunk, s: Scalars) -> f32 {
    var squares = vec4<f32>();
    for (var j = 0u; 4u * j < chunk.len; j += 1u) {
        let g = FAR * clip(read_inside(chunk, j), s);
        squares += g * g;
    }
    return total(squares);
}

@compute @workgroup_size(32)
fn norm(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    if lane == 0u { atomicStore(&broken, 0u); }
    workgroupBarrier();
    let at = linear(in);
    var sum = Sum();
    if at < grid.count {
        let chunk = chunks[grid.first + at];
        let s = scalars[chunk.scalars];
        var found = vec4<bool>(false);
        let range = range_of(chunk, lane);
        for (var j = range.x; j < range.y; j += LANES) {
            let read = read_inside(chunk, j);
            // As they are, and as they are scaled.
            found |= is_above(read, EXPONENT - 1u) | is_above(scaled(read, s), LARGEST);
            let g = clip(read, s);
            sum = add_vector(sum, j, g * g);
        }
        if any(found) { atomicOr(&broken, 1u); }
    }
    let of_chunk = sum_over_chunk(lane, sum);
    if lane == 0u && at < grid.count {
        let chunk = chunks[grid.first + at];
        var word = bitcast<u32>(of_chunk) | PRESENT;
        if atomicLoad(&broken) == 1u {
            word = NOT_FINITE;
        } else if (word & EXPONENT) == EXPONENT {
            word = bitcast<u32>(far_squares(chunk, scalars[chunk.scalars]));
        }
        atomicStore(&counters[grid.norms + place_of(chunk)], word);
    }
}
