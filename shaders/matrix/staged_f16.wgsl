// What tiles are staged as: half of the memory, and 11 bits. Sums are of f32 all the same.

enable f16;

alias Staged = vec4<f16>;
