// The averages of the parameters over the steps of a run.

@group(2) @binding(0) var<storage, read_write> param_average: array<vec4<f32>>;
