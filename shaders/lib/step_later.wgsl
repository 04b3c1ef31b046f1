// Where the direction is orthogonalised first: it is stored, and what is decided is in the notes.

fn begin(chunk: Chunk, lane: u32) {
}

fn take(chunk: Chunk, vector: u32, row: Row, direction: vec4<f32>, selected: vec4<bool>, undecided: vec4<bool>) {
    directions[chunk.offset / 4u + vector] = direction;
}
