// A whole step of a tensor of at most 4,096 coordinates under `mgup`: one workgroup, the scores in registers, their K-th largest by
// bisection, first of the key, then of the index.

import package::{next::next_of, policy::{factors, phi}, sink::{begin_sink, emit}, state::store_state};
import package::lib::{coupled::coupled, flags::ones, gradients::read_grad, order::{NAN_KEY, before, cut_in, key}, skip::{chunk_at, scalars_of}};
import package::lib::totals::{clear_totals, total};
import package::tables::{CHUNK, Cut, EACH, Invocation, grid, linear, tensors};

const VECTORS: u32 = 16u;       // a lane, at most
const SMALL_LANES: u32 = 64u;   // few, because every lane waits at every barrier

var<workgroup> rounds: u32;

@compute @workgroup_size(64)
fn small(in: Invocation, @builtin(local_invocation_index) lane: u32) {
    clear_totals(lane);
    let at = linear(in);
    if at < grid.count {
        let chunk = chunk_at(grid.first + at);
        let s = scalars_of(chunk);
        let k = tensors.each[chunk.tensor].k;
        begin_sink(chunk, lane);
        let own = factors(chunk, s);
        let vectors = (chunk.len + 4u * SMALL_LANES - 1u) / (4u * SMALL_LANES);
        var found: array<vec4<f32>, VECTORS>;     // directions
        var keys: array<vec4<u32>, VECTORS>;
        for (var r = 0u; r < vectors; r += 1u) {
            let j = lane + r * SMALL_LANES;
            keys[r] = vec4<u32>(NAN_KEY);
            if 4u * j < chunk.len {
                let lanes = min(4u, chunk.len - 4u * j);
                let vector = chunk.offset / 4u + j;
                let g = read_grad(chunk, j, s);
                let next = next_of(chunk, vector, coupled(g, chunk, j, s), s);
                store_state(chunk, vector, next.state);
                found[r] = next.direction;
                let inside = EACH < vec4<u32>(lanes);
                keys[r] = select(vec4<u32>(NAN_KEY), key(next.direction * g), inside);
            }
        }

        // The largest key that at least K reach; 0 if fewer than K are numbers.
        var threshold = 0u;
        var turn = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            let trial = vec4<u32>(threshold | bit);
            var mine = 0u;
            for (var r = 0u; r < vectors; r += 1u) {
                mine += ones(keys[r] >= trial);
            }
            if total(lane, turn, mine) >= k { threshold |= bit; }
            turn += 1u;
        }

        // Of the tied ones, the lowest indices.
        var above = 0u;
        var tied = 0u;
        for (var r = 0u; r < vectors; r += 1u) {
            above += ones(keys[r] > vec4<u32>(threshold));
            tied += ones(keys[r] == vec4<u32>(threshold));
        }
        let beyond = total(lane, turn, above);
        let ties = select(total(lane, turn + 1u, tied), 0u, threshold == NAN_KEY);
        turn += 2u;
        let wanted = min(k - min(k, beyond), ties);
        if lane == 0u {
            rounds = select(12u, 0u, wanted == ties);
            atomicStore(&tensors.each[chunk.tensor].selected, beyond + wanted);
            tensors.each[chunk.tensor].found = Cut(threshold, 0u);
        }
        let index_rounds = workgroupUniformLoad(&rounds);
        var limit = select(CHUNK, 0u, threshold == NAN_KEY || wanted == 0u);
        if index_rounds > 0u { limit = 0u; }
        for (var round = index_rounds; round > 0u; round -= 1u) {
            let trial = limit + (1u << (round - 1u));
            var mine = 0u;
            for (var r = 0u; r < vectors; r += 1u) {
                let index = vec4<u32>(4u * (lane + r * SMALL_LANES)) + EACH;
                mine += ones((keys[r] == vec4<u32>(threshold)) & (index < vec4<u32>(trial)));
            }
            // At most `wanted` lie before the limit; the last round makes it as large as that allows.
            if total(lane, turn, mine) <= wanted { limit = trial; }
            turn += 1u;
        }

        let cut = cut_in(chunk, Cut(threshold, limit));
        for (var r = 0u; r < vectors; r += 1u) {
            let j = lane + r * SMALL_LANES;
            if 4u * j < chunk.len {
                let lanes = min(4u, chunk.len - 4u * j);
                let selected = before(keys[r], 4u * j, cut);
                emit(chunk, j, s, phi(own, selected, vec4<f32>()), found[r], selected, vec4<bool>(false));
            }
        }
    }
}
