// Coordinates of a matrix as it is orthogonalized, m × n, and as its tensor stores it: transposed if it is tall.

import package::tables::{Chunk, grid, tensors};

struct Position {
    row: u32,
    vector: u32,    // of four columns
    inside: bool,
}

// The position of an invocation. Neighbors have neighboring coordinates of the tensor.
fn position_of(matrix: Chunk, at: u32) -> Position {
    let rows = 4u * ((grid.m + 3u) / 4u);
    let vectors = (grid.n + 3u) / 4u;
    let inside = at < rows * vectors;
    if tensors.each[matrix.tensor].tall == 1u { return Position(at % rows, at / rows, inside); }
    return Position(at / vectors, at % vectors, inside);
}

fn stored(matrix: Chunk, row: u32, column: u32) -> u32 {
    return select(row * grid.n + column, column * grid.m + row, tensors.each[matrix.tensor].tall == 1u);
}
