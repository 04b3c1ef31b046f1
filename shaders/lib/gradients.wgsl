// g ← limit(g · grad_scale / loss_scale) · min(1, max_grad_norm / (‖g‖ + 1e-6)), the last factor from `guard/guard.wgsl`

import package::access::grad::load_grad;
import package::tables::{Chunk, Scalars, tensors};

override LIMITED: bool = false;     // by max_grad_value
override GUARDED: bool = false;     // by factors that the GPU finds
override AHEAD: bool = false;       // before `guard/guard.wgsl` has run
override AS_IS: bool = false;       // directions, not gradients: nothing changes them

// The scaled gradient, before limits and clipping. 0 for directions, which have no scale and cannot overflow by it.
fn scaled(g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if AS_IS { return vec4<f32>(); }
    if AHEAD { return (s.grad_scale / tensors.loss_scale) * g; }
    if GUARDED { return (s.grad_scale * tensors.unscale) * g; }
    return s.grad_scale * g;
}

fn limit(g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if LIMITED { return clamp(g, vec4<f32>(-s.max_grad_value), vec4<f32>(s.max_grad_value)); }
    return g;
}

fn clip(g: vec4<f32>, s: Scalars) -> vec4<f32> {
    if AS_IS { return g; }
    if GUARDED && !AHEAD { return tensors.norm_factor * limit(scaled(g, s), s); }
    return limit(scaled(g, s), s);
}

// The gradients of a vector of a chunk, as the step sees them.
fn read_grad(chunk: Chunk, vector: u32, s: Scalars) -> vec4<f32> {
    return clip(load_grad(chunk.grad / 4u + vector, min(4u, chunk.len - 4u * vector)), s);
}
