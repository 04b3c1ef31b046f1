// What tiles are staged as: what they are.

alias Staged = vec4<f32>;
