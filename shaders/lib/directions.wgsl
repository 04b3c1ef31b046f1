// Directions of a matrix base, as they lie in the page, on their way to be orthogonalised.

@group(1) @binding(0) var<storage, read_write> directions: array<vec4<f32>>;
