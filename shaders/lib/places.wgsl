// Coordinates of a matrix as it is orthogonalised, m × n, and as its tensor stores it: transposed if it is tall.

struct Place {
    row: u32,
    vector: u32,    // of four columns
    inside: bool,
}

// The place of an invocation. Neighbours have neighbouring coordinates of the tensor.
fn place_of(matrix: Chunk, at: u32) -> Place {
    let rows = 4u * ((grid.m + 3u) / 4u);
    let vectors = (grid.n + 3u) / 4u;
    let inside = at < rows * vectors;
    if tensors.each[matrix.tensor].tall == 1u {
        return Place(at % rows, at / rows, inside);
    }
    return Place(at / vectors, at % vectors, inside);
}

fn stored(matrix: Chunk, row: u32, column: u32) -> u32 {
    return select(row * grid.n + column, column * grid.m + row, tensors.each[matrix.tensor].tall == 1u);
}
