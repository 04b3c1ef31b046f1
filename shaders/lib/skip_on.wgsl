// A step may be skipped: its chunks are empty then, and the tensor's count of steps stays behind. The host knows how many
// steps it recorded, and the bias corrections follow here from those that were taken.

const CORRECTS_STEP: u32 = 1u;
const CORRECTS_DECAY: u32 = 2u;
const CORRECTS_EPS: u32 = 4u;

fn skips() -> bool {
    return tensors.skip == 1u;
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

fn row_of(chunk: Chunk) -> Row {
    var row = rows[chunk.row];
    // Both counts end at the last u32.
    row.t -= min(tensors.each[chunk.tensor].skipped, row.t - 1u);
    let t = f32(row.t);
    let root = sqrt(complement(t * row.ln_beta2));
    let bias = root / complement(t * row.ln_beta1);
    row.step *= select(1.0, bias, (row.corrects & CORRECTS_STEP) != 0u);
    row.decay *= select(1.0, bias, (row.corrects & CORRECTS_DECAY) != 0u);
    row.eps *= select(1.0, root, (row.corrects & CORRECTS_EPS) != 0u);
    return row;
}
