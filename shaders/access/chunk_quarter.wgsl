// The work of one workgroup on a GPU: a quarter of a chunk, one vector per lane. `index` counts quarters.

import package::tables::{CHUNK, Chunk, chunks};

const QUARTER: u32 = CHUNK / 4u;

fn work_at(index: u32) -> Chunk {
    var chunk = chunks[index / 4u];
    let skipped = index % 4u * QUARTER;
    chunk.offset += skipped;
    chunk.index += skipped;
    chunk.param += skipped;
    chunk.grad += skipped;
    chunk.len = min(chunk.len - min(chunk.len, skipped), QUARTER);
    return chunk;
}
