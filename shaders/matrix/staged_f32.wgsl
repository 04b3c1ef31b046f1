// Tiles are staged in f32.

alias Staged = vec4<f32>;
