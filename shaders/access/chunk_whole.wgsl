// The work of one workgroup on a CPU: a chunk.

import package::tables::{Chunk, chunks};

fn work_at(index: u32) -> Chunk {
    return chunks[index];
}
