// A picture as a sum of Gaussians, and the gradient of its squared error.
//
//   color(x) = Σₙ cₙ wₙ(x),  wₙ = exp(−½ |uₙ|²),  uₙ = R(φₙ)ᵀ (x − µₙ) / sₙ
//   loss = mean over pixels and channels of (color − target)²
//
// `position` holds µ, `shape` the logarithms of s and the angle φ, `color` c. Lengths are in eighths of the picture's longer
// side, so that one learning rate suits all of them. Nothing here is summed in an order that may change: the same picture and
// optimizer give the same bits.

struct History {
    steps: u32,
    // The loss of step n at n modulo their number.
    losses: array<f32>,
}

// A Gaussian in pixels.
struct Gaussian {
    center: vec2<f32>,
    // Standard deviations along its axes, and the first of these.
    deviation: vec2<f32>,
    axis: vec2<f32>,
    // How far it reaches from its center along x and y.
    reach: vec2<f32>,
    color: vec4<f32>,
}

@group(0) @binding(1) var<storage, read_write> target_image: array<vec4<f32>>;
// Color − target, of each pixel.
@group(0) @binding(2) var<storage, read_write> errors: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> position: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read_write> shape: array<f32>;
@group(0) @binding(5) var<storage, read_write> color: array<f32>;
@group(0) @binding(6) var<storage, read_write> position_grad: array<vec2<f32>>;
@group(0) @binding(7) var<storage, read_write> shape_grad: array<f32>;
@group(0) @binding(8) var<storage, read_write> color_grad: array<f32>;
@group(0) @binding(9) var<storage, read_write> gaussians: array<Gaussian>;
// Per tile, the number of Gaussians that reach into it, and their indices.
@group(0) @binding(10) var<storage, read_write> lists: array<u32>;
@group(0) @binding(11) var<storage, read_write> history: History;

// A side of a tile.
const TILE = 16u;
// Invocations of a workgroup that is not a tile.
const LANES = 32u;
// Where a Gaussian ends, in standard deviations.
const REACH = 3.5;
// The least standard deviation, in pixels, and the largest, in longer sides of the picture.
const THINNEST = 0.3;
const WIDEST = 2.0;

// Pixels of a unit of length.
fn unit() -> f32 {
    return f32(max(picture.width, picture.height)) / 8.0;
}

fn widest() -> f32 {
    return WIDEST * 8.0 * unit();
}

fn size() -> vec2<f32> {
    return vec2<f32>(f32(picture.width), f32(picture.height));
}

fn across(axis: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(-axis.y, axis.x);
}

@compute @workgroup_size(LANES)
fn project(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.x;
    if n >= picture.gaussians {
        return;
    }
    let angle = shape[3u * n + 2u];
    let axis = vec2<f32>(cos(angle), sin(angle));
    let free = exp(vec2<f32>(shape[3u * n], shape[3u * n + 1u])) * unit();
    let deviation = clamp(free, vec2<f32>(THINNEST), vec2<f32>(widest()));
    let a = axis * deviation.x;
    let b = across(axis) * deviation.y;
    gaussians[n] = Gaussian(
        position[n] * unit(),
        deviation,
        axis,
        REACH * sqrt(a * a + b * b),
        vec4<f32>(color[3u * n], color[3u * n + 1u], color[3u * n + 2u], 0.0),
    );
}

// u of a pixel.
fn within(found: Gaussian, pixel: vec2<f32>) -> vec2<f32> {
    let d = pixel - found.center;
    return vec2<f32>(dot(d, found.axis), dot(d, across(found.axis))) / found.deviation;
}

fn weight(u: vec2<f32>) -> f32 {
    let square = dot(u, u);
    return select(0.0, exp(-0.5 * square), square < REACH * REACH);
}

fn is_near(n: u32, middle: vec2<f32>) -> bool {
    return all(abs(gaussians[n].center - middle) < gaussians[n].reach + 0.5 * f32(TILE));
}

var<workgroup> counts: array<u32, LANES>;

// One workgroup per tile: every lane looks at a range of the Gaussians, so that the list is in their order.
@compute @workgroup_size(LANES)
fn list(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(num_workgroups) tiles: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let middle = (vec2<f32>(tile.xy) + 0.5) * f32(TILE);
    let share = (picture.gaussians + LANES - 1u) / LANES;
    let first = min(lane * share, picture.gaussians);
    let end = min(first + share, picture.gaussians);
    var count = 0u;
    for (var n = first; n < end; n += 1u) {
        count += u32(is_near(n, middle));
    }
    counts[lane] = count;
    workgroupBarrier();
    let start = (tile.y * tiles.x + tile.x) * (picture.gaussians + 1u);
    var at = start + 1u;
    for (var before = 0u; before < lane; before += 1u) {
        at += counts[before];
    }
    for (var n = first; n < end; n += 1u) {
        if is_near(n, middle) {
            lists[at] = n;
            at += 1u;
        }
    }
    if lane == LANES - 1u {
        lists[start] = at - start - 1u;
    }
}

@compute @workgroup_size(TILE, TILE)
fn render(
    @builtin(workgroup_id) tile: vec3<u32>,
    @builtin(num_workgroups) tiles: vec3<u32>,
    @builtin(global_invocation_id) id: vec3<u32>,
) {
    if id.x >= picture.width || id.y >= picture.height {
        return;
    }
    let pixel = vec2<f32>(id.xy) + 0.5;
    let start = (tile.y * tiles.x + tile.x) * (picture.gaussians + 1u);
    let end = start + lists[start];
    var sum = vec3<f32>(0.0);
    for (var at = start + 1u; at <= end; at += 1u) {
        let found = gaussians[lists[at]];
        sum += found.color.rgb * weight(within(found, pixel));
    }
    let i = id.y * picture.width + id.x;
    errors[i] = vec4<f32>(sum - target_image[i].rgb, 0.0);
}

var<workgroup> squares: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn sum_loss(@builtin(local_invocation_index) lane: u32) {
    let pixels = picture.width * picture.height;
    var sum = 0.0;
    for (var i = lane; i < pixels; i += LANES) {
        sum += dot(errors[i], errors[i]);
    }
    squares[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        for (var other = 1u; other < LANES; other += 1u) {
            sum += squares[other];
        }
        history.losses[history.steps % arrayLength(&history.losses)] = sum / f32(3u * pixels);
        history.steps += 1u;
    }
}

struct Sums {
    position: vec2<f32>,
    shape: vec3<f32>,
    color: vec3<f32>,
}

var<workgroup> sums: array<Sums, LANES>;

// One workgroup per Gaussian: with e = dloss/dcolor(x), the sums over its pixels of
//   dc = e w,  dµ = (e·c) w Rᵀ⁻¹ (u / s),  dlog s = (e·c) w u²,  dφ = −(e·c) w u₁ u₂ (s₂/s₁ − s₁/s₂)
@compute @workgroup_size(LANES)
fn gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let n = workgroup.x;
    let mine = gaussians[n];
    let low = vec2<u32>(clamp(floor(mine.center - mine.reach), vec2<f32>(0.0), size()));
    let high = vec2<u32>(clamp(ceil(mine.center + mine.reach), vec2<f32>(0.0), size()));
    let turn = mine.deviation.y / mine.deviation.x - mine.deviation.x / mine.deviation.y;
    var sum: Sums;
    for (var y = low.y + lane / 8u; y < high.y; y += LANES / 8u) {
        for (var x = low.x + lane % 8u; x < high.x; x += 8u) {
            let u = within(mine, vec2<f32>(vec2<u32>(x, y)) + 0.5);
            let w = weight(u);
            let error = errors[y * picture.width + x].rgb;
            let pull = dot(error, mine.color.rgb) * w;
            let slope = u / mine.deviation;
            sum.position += pull * (slope.x * mine.axis + slope.y * across(mine.axis));
            sum.shape += pull * vec3<f32>(u * u, -u.x * u.y * turn);
            sum.color += error * w;
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane == 0u {
        for (var other = 1u; other < LANES; other += 1u) {
            sum.position += sums[other].position;
            sum.shape += sums[other].shape;
            sum.color += sums[other].color;
        }
        // Nothing pulls beyond where a deviation ends: a step goes against the gradient.
        let too_thin = (mine.deviation <= vec2<f32>(THINNEST)) & (sum.shape.xy > vec2<f32>(0.0));
        let too_wide = (mine.deviation >= vec2<f32>(widest())) & (sum.shape.xy < vec2<f32>(0.0));
        sum.shape = vec3<f32>(select(sum.shape.xy, vec2<f32>(0.0), too_thin | too_wide), sum.shape.z);
        let scale = 2.0 / f32(3u * picture.width * picture.height);
        position_grad[n] = scale * unit() * sum.position;
        for (var i = 0u; i < 3u; i += 1u) {
            shape_grad[3u * n + i] = scale * sum.shape[i];
            color_grad[3u * n + i] = scale * sum.color[i];
        }
    }
}

// PCG: three numbers in [0, 1).
fn random(n: u32) -> vec3<f32> {
    var v = vec3<u32>(n, picture.seed, 0x9e3779b9u) * 1664525u + 1013904223u;
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v ^= v >> vec3<u32>(16u);
    v.x += v.y * v.z;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    return vec3<f32>(v >> vec3<u32>(8u)) / 16777216.0;
}

// Small round Gaussians all over the picture, as bright as what lies under them.
@compute @workgroup_size(LANES)
fn begin(@builtin(global_invocation_id) id: vec3<u32>) {
    let n = id.x;
    if n == 0u {
        history.steps = 0u;
    }
    if n >= picture.gaussians {
        return;
    }
    let place = random(n);
    let at = vec2<u32>(place.xy * size());
    let deviation = 0.5 * sqrt(size().x * size().y / f32(picture.gaussians));
    position[n] = place.xy * size() / unit();
    shape[3u * n] = log(deviation / unit());
    shape[3u * n + 1u] = log(deviation / unit());
    shape[3u * n + 2u] = 3.14159265 * place.z;
    let under = target_image[at.y * picture.width + at.x].rgb;
    for (var i = 0u; i < 3u; i += 1u) {
        color[3u * n + i] = 0.5 * under[i];
    }
}
