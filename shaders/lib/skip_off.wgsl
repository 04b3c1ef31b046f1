// Every step is taken, with the scalars of the host.

fn skips() -> bool {
    return false;
}

fn chunk_at(index: u32) -> Chunk {
    return chunks[index];
}

fn row_of(chunk: Chunk) -> Row {
    return rows[chunk.row];
}
