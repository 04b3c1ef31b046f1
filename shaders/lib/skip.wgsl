// A step that may be skipped: its chunks are empty then, and the tensor's count of steps stays behind. The host knows how many steps it
// recorded; the bias corrections follow here from those that were taken.

import package::tables::{Chunk, Scalars, chunks, scalars, tensors};

override SKIPS: bool = false;

const CORRECTS_STEP: u32 = 1u;
const CORRECTS_DECAY: u32 = 2u;
const CORRECTS_EPS: u32 = 4u;

fn skips() -> bool {
    if SKIPS { return tensors.skip == 1u; }
    return false;
}

fn chunk_at(index: u32) -> Chunk {
    var chunk = chunks[index];
    chunk.len = select(chunk.len, 0u, skips());
    return chunk;
}

// 1 − exp(x), for x < 0: a series where the difference would cancel.
fn complement(x: f32) -> f32 {
    var series = 1.0;
    for (var i = 8u; i > 1u; i -= 1u) {
        series = 1.0 + x / f32(i) * series;
    }
    return select(1.0 - exp(x), -x * series, x > -0.5);
}

fn scalars_of(chunk: Chunk) -> Scalars {
    var s = scalars[chunk.scalars];
    if SKIPS {
        // Both counts end at the last u32.
        s.t -= min(tensors.each[chunk.tensor].skipped, s.t - 1u);
        let t = f32(s.t);
        let root = sqrt(complement(t * s.ln_beta2));
        let bias = root / complement(t * s.ln_beta1);
        s.step *= select(1.0, bias, (s.corrects & CORRECTS_STEP) != 0u);
        s.decay *= select(1.0, bias, (s.corrects & CORRECTS_DECAY) != 0u);
        s.eps *= select(1.0, root, (s.corrects & CORRECTS_EPS) != 0u);
    }
    return s;
}
