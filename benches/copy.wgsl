// p[i] = g[i]: the speed of memory, 8 bytes per parameter.

override RUN: u32;   // vectors of four per workgroup

@group(0) @binding(0) var<storage, read_write> p: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> g: array<vec4<f32>>;

@compute @workgroup_size(256)
fn copy(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let first = (workgroup.y * workgroups.x + workgroup.x) * RUN;
    for (var j = lane; j < RUN; j += 256u) {
        if first + j < arrayLength(&p) {
            p[first + j] = g[first + j];
        }
    }
}
