// What is observed of a step: four words per chunk, then eight per tensor; and a copy of the parameters.

@group(2) @binding(0) var<storage, read_write> snapshot: array<vec4<f32>>;
@group(3) @binding(0) var<storage, read_write> observations: array<atomic<u32>>;
