// Tiles are staged in f16: half of the memory, and 11 bits of precision. Sums stay f32.

enable f16;

alias Staged = vec4<f16>;
