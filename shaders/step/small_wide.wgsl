// `small.wgsl` on GPUs: four vectors per lane, in registers, and their K-th largest score digit by digit.

import package::{next::next_of, policy::{factors, phi}, sink::{begin_sink, emit}, state::store_state};
import package::lib::{bins::{clear_bins, counted_populations}, coupled::coupled, gradients::read_grad, order::{NAN_KEY, before, cut_in, key}};
import package::lib::{search::{DIGITS, begin_search, count_digits, publish_search, search, take_digit}, skip::{chunk_at, scalars_of}};
import package::tables::{CHUNK, Chunk, EACH, Invocation, Scalars, WORKGROUP, grid, linear, tensors};

struct Scored {
    found: vec4<u32>,       // keys
    direction: vec4<f32>,
}

fn score(chunk: Chunk, j: u32, s: Scalars) -> Scored {
    if 4u * j >= chunk.len { return Scored(vec4<u32>(NAN_KEY), vec4<f32>()); }
    let vector = chunk.offset / 4u + j;
    let g = read_grad(chunk, j, s);
    let next = next_of(chunk, vector, coupled(g, chunk, j, s), s);
    store_state(chunk, vector, next.state);
    let inside = 4u * j + EACH < vec4<u32>(chunk.len);
    return Scored(select(vec4<u32>(NAN_KEY), key(next.direction * g), inside), next.direction);
}

@compute @workgroup_size(256)
fn small_wide(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        begin_sink(chunk, lane);
        var own: array<Scored, 4>;
        for (var i = 0u; i < 4u; i += 1u) {
            own[i] = score(chunk, lane + i * WORKGROUP, s);
        }
        begin_search(lane, tensors.each[chunk.tensor].k, 0u, 0xffffffffu);
        loop {
            clear_bins(lane);
            let sought = workgroupUniformLoad(&search);
            if sought.digit == DIGITS { break; }
            for (var i = 0u; i < 4u; i += 1u) {
                count_digits(sought, own[i].found, 4u * (lane + i * WORKGROUP) + EACH);
            }
            workgroupBarrier();
            take_digit(lane, counted_populations(lane), CHUNK, false);
        }
        if lane == 0u { publish_search(chunk.tensor); }
        for (var i = 0u; i < 4u; i += 1u) {
            let j = lane + i * WORKGROUP;
            if 4u * j < chunk.len {
                let selected = before(own[i].found, 4u * j, cut_in(chunk, search.cut));
                emit(chunk, j, s, phi(factors(chunk, s), selected, vec4<f32>()), own[i].direction, selected, vec4<bool>(false));
            }
        }
    }
}
