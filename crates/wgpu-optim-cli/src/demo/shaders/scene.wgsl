// A picture to begin with, of no file: mountains at a lake, at dusk.

@group(0) @binding(1) var<storage, read_write> target_image: array<vec4<f32>>;

const SHORE = 0.68;
const SUN = vec2<f32>(0.64, 0.50);

// The height of a ridge over x, from a few octaves of triangles.
fn ridge(x: f32, shift: f32, steep: f32) -> f32 {
    var sum = 0.0;
    var size = 1.0;
    var at = x * 1.7 + shift;
    for (var octave = 0; octave < 5; octave += 1) {
        sum += size * (2.0 * abs(fract(at) - 0.5) - 0.5);
        at = at * 2.13 + 1.37 * shift;
        size *= 0.46;
    }
    return steep * sum;
}

fn sky(at: vec2<f32>) -> vec3<f32> {
    let high = mix(vec3<f32>(0.98, 0.62, 0.36), vec3<f32>(0.86, 0.36, 0.42), smoothstep(0.62, 0.40, at.y));
    let tone = mix(high, vec3<f32>(0.13, 0.15, 0.38), smoothstep(0.46, 0.0, at.y));
    let far = distance(at, SUN);
    let glow = vec3<f32>(0.45, 0.30, 0.12) * exp(-far * far * 34.0);
    let disc = smoothstep(0.075, 0.068, far);
    return mix(tone + glow, vec3<f32>(1.0, 0.93, 0.74), disc);
}

fn land(at: vec2<f32>) -> vec3<f32> {
    var tone = sky(at);
    let far = 0.45 - ridge(at.x, 0.31, 0.16);
    tone = mix(tone, vec3<f32>(0.53, 0.33, 0.47), smoothstep(far - 0.003, far + 0.003, at.y));
    let middle = 0.545 - ridge(at.x, 2.62, 0.12);
    tone = mix(tone, vec3<f32>(0.29, 0.20, 0.36), smoothstep(middle - 0.003, middle + 0.003, at.y));
    let near = 0.64 - ridge(at.x, 5.17, 0.07);
    return mix(tone, vec3<f32>(0.11, 0.10, 0.20), smoothstep(near - 0.003, near + 0.003, at.y));
}

fn scene(at: vec2<f32>) -> vec3<f32> {
    if at.y < SHORE {
        return land(at);
    }
    // What stands above the shore, mirrored and broken by waves.
    let depth = at.y - SHORE;
    let wave = 0.012 * sin(at.y * 190.0 / (1.0 + 5.0 * depth) + 3.0 * sin(at.x * 9.0)) * smoothstep(0.0, 0.1, depth);
    let mirrored = land(vec2<f32>(at.x + wave, SHORE - 1.5 * depth));
    return mix(mirrored, vec3<f32>(0.10, 0.13, 0.28), 0.25 + 0.9 * depth);
}

@compute @workgroup_size(16, 16)
fn draw(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= picture.width || id.y >= picture.height {
        return;
    }
    // Four samples per pixel.
    var sum = vec3<f32>(0.0);
    for (var i = 0u; i < 4u; i += 1u) {
        let at = vec2<f32>(id.xy) + vec2<f32>(f32(i & 1u), f32(i >> 1u)) * 0.5 + 0.25;
        sum += clamp(scene(at / vec2<f32>(f32(picture.width), f32(picture.height))), vec3<f32>(0.0), vec3<f32>(1.0));
    }
    target_image[id.y * picture.width + id.x] = vec4<f32>(0.25 * sum, 1.0);
}
