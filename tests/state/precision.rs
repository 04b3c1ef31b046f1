//! Parameters and gradients in two bytes: every rounding, the same mathematics, nothing else touched.

use crate::common::{self, Gpu, gpus};
use half::{bf16, f16};
use wgpu_optim::{
    GpuOptimizer, GradScaler, ParamGroups, Precision, Recipe, Rounding, TensorBuffers, TensorSlice, TensorSpec,
    reference, verify, wgpu,
};

const HALVES: [Precision; 2] = [Precision::F16, Precision::Bf16];
const SIZES: [usize; 8] = [1, 2, 3, 5, 1023, 4099, 70_001, 480];

fn specs() -> Vec<TensorSpec> {
    SIZES
        .iter()
        .map(|&n| {
            let shape = if n == 480 { vec![24, 20] } else { vec![n] };
            TensorSpec::new(format!("t{n}"), shape)
        })
        .collect()
}

fn grad(i: usize, t: u64) -> Vec<f32> {
    verify::grads(SIZES[i], t + 100 * i as u64)
}

fn build(gpu: &Gpu, groups: impl Into<ParamGroups>) -> GpuOptimizer {
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer
}

/// A parameter as it is stored.
fn stored(gpu: &Gpu, slice: TensorSlice<'_>) -> Vec<u8> {
    let all = common::read(gpu, slice.buffer);
    all[slice.offset as usize..][..slice.size as usize].to_vec()
}

fn round_trip(gpu: &Gpu, precision: Precision, values: &[f32]) -> Vec<u8> {
    let still = Recipe::lion(0.0);
    let spec = [TensorSpec::new("w", [values.len()])];
    let groups = ParamGroups::from(still).with_precision(precision);
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
    optimizer.write_state("w", "master", values).unwrap();
    optimizer.step().unwrap();
    stored(gpu, optimizer.param("w").unwrap())
}

#[test]
fn every_value_of_two_bytes_is_read_and_written_back() {
    for gpu in gpus() {
        for precision in HALVES {
            let patterns: Vec<u16> = (0..=u16::MAX).collect();
            let spec = [TensorSpec::new("w", [patterns.len()])];
            let groups = ParamGroups::from(Recipe::lion(0.0)).with_precision(precision);
            let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &spec, groups).unwrap();
            let slice = optimizer.param("w").unwrap();
            gpu.queue.write_buffer(slice.buffer, slice.offset, bytemuck::cast_slice(&patterns));
            optimizer.forget_masters();
            let masters = optimizer.read_param_blocking("w").unwrap();
            let expected = precision.decode(bytemuck::cast_slice(&patterns), patterns.len());
            for (i, (found, expected)) in masters.iter().zip(&expected).enumerate() {
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{}: {precision:?} {i:04x}: {found} instead of {expected}", gpu.name);
            }
            optimizer.step().unwrap();
            let back: Vec<u16> = bytemuck::pod_collect_to_vec(&stored(&gpu, optimizer.param("w").unwrap()));
            for (i, (&found, value)) in back.iter().zip(&expected).enumerate() {
                // Infinity times a learning rate of 0 is not a number, and an adapter may flush subnormals.
                assert!(
                    found == patterns[i] || !(value.is_normal() || *value == 0.0),
                    "{}: {precision:?} {i:04x}: {found:04x}",
                    gpu.name
                );
            }
        }
    }
}

#[test]
fn rounding_is_to_nearest_ties_to_even() {
    for gpu in gpus() {
        for precision in HALVES {
            // Around every value that two bytes can hold: the middle to the next, and a little to both sides of it.
            let mut values = Vec::new();
            for pattern in (0..=u16::MAX).step_by(7) {
                let [low, high] = [pattern, pattern.wrapping_add(1)].map(|pattern| match precision {
                    Precision::F16 => f16::from_bits(pattern).to_f64(),
                    _ => bf16::from_bits(pattern).to_f64(),
                });
                let middle = (low + high) / 2.0;
                if middle.is_finite() && (low < 0.0) == (high < 0.0) {
                    let middle = middle as f32;
                    values.extend([middle, middle.next_up(), middle.next_down()]);
                }
            }
            values.extend([65_504.0, 65_519.99, 65_520.0, -65_520.0, 1e30, f32::MAX, -f32::MAX, -0.0, 1e-8, -3e-8]);
            values.extend(verify::grads(50_000, 3));
            values.retain(|value| value.is_finite() && (value.is_normal() || *value == 0.0));
            let found = round_trip(&gpu, precision, &values);
            let expected = precision.encode(&values);
            let halves = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u16>(bytes);
            for ((found, expected), value) in halves(&found).iter().zip(halves(&expected)).zip(&values) {
                assert_eq!(*found, expected, "{}: {precision:?}: {value:e}", gpu.name);
            }
        }
    }
}

#[test]
fn steps_follow_the_cpu_with_rounded_gradients() {
    for gpu in gpus() {
        for precision in HALVES {
            for name in ["adamw", "cautious-adamw", "mgup-adamw", "mgup-adamw-approximate", "lion", "mgup-adago"] {
                let (_, recipe) = verify::recipes().into_iter().find(|(known, _)| known == name).unwrap();
                let scaler = GradScaler::default().init(16.0);
                let groups = ParamGroups::from(recipe)
                    .with_precision(precision)
                    .with_grad_scaler(scaler)
                    .with_max_grad_norm(1e6)
                    .with_telemetry(1);
                let mut optimizer = build(&gpu, groups);
                let mut twins: Vec<_> = specs()
                    .iter()
                    .map(|spec| {
                        let params = verify::params(spec.numel() as usize);
                        reference::Tensor::with_shape(recipe, spec, params).unwrap()
                    })
                    .collect();
                for t in 1..4 {
                    for (i, (spec, twin)) in specs().iter().zip(&mut twins).enumerate() {
                        let scaled: Vec<f32> = grad(i, t).iter().map(|g| 16.0 * g).collect();
                        optimizer.write_grad(&spec.name, &scaled).unwrap();
                        let rounded = precision.decode(&precision.encode(&scaled), SIZES[i]);
                        twin.step(&rounded.iter().map(|g| g / 16.0).collect::<Vec<_>>());
                    }
                    optimizer.step().unwrap();
                }
                for (spec, twin) in specs().iter().zip(&twins) {
                    let what = format!("{}: {precision:?} {name}, {}", gpu.name, spec.name);
                    let master = optimizer.read_param_blocking(&spec.name).unwrap();
                    let matrix = twin.recipe.base.newton_schulz().is_some();
                    let tolerance = if matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
                    let wrong = master.iter().zip(&twin.param).filter(|(found, expected)| {
                        let allowed = tolerance.0 + tolerance.1 * f64::from(expected.abs());
                        (f64::from(**found) - f64::from(**expected)).abs() > allowed
                    });
                    // Few digits make many equal scores, and rounding decides between some of these.
                    let most = if name.starts_with("mgup") { master.len() / 5_000 + 2 } else { 0 };
                    let wrong = wrong.count();
                    assert!(wrong <= most, "{what}: {wrong} differ");
                    let low = stored(&gpu, optimizer.param(&spec.name).unwrap());
                    assert!(low == precision.encode(&master), "{what}: the rounded parameters");
                }
            }
        }
    }
}

/// Tensors of the caller's, one behind the other at the device's alignment, with bytes between them that are nobody's.
struct Own {
    buffer: wgpu::Buffer,
    params: Vec<(u64, u64)>,
    grads: Vec<(u64, u64)>,
    size: u64,
}

impl Own {
    fn new(gpu: &Gpu, precision: Precision) -> Self {
        let alignment = u64::from(gpu.device.limits().min_storage_buffer_offset_alignment);
        let mut size = 0;
        let mut places = |numel: usize| {
            let bytes = (precision.bytes() * numel as u64).next_multiple_of(4);
            let place = (size, bytes);
            size = (size + bytes + 8).next_multiple_of(alignment);
            place
        };
        let params = SIZES.iter().map(|&n| places(n)).collect();
        let grads = SIZES.iter().map(|&n| places(n)).collect();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer =
            gpu.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        gpu.queue.write_buffer(&buffer, 0, &vec![0xa5; size as usize]);
        let own = Self { buffer, params, grads, size };
        (0..SIZES.len()).for_each(|i| own.fill(gpu, own.params[i].0, precision, &verify::params(SIZES[i])));
        own
    }

    fn fill(&self, gpu: &Gpu, offset: u64, precision: Precision, values: &[f32]) {
        gpu.queue.write_buffer(&self.buffer, offset, &precision.encode(values));
    }

    fn slices(&self) -> Vec<TensorBuffers<'_>> {
        let slice = |&(offset, size): &(u64, u64)| TensorSlice { buffer: &self.buffer, offset, size };
        self.params.iter().zip(&self.grads).map(|(p, g)| TensorBuffers::new(slice(p), slice(g))).collect()
    }
}

#[test]
fn callers_buffers_equal_arenas_and_nothing_else_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.safetensors");
    for gpu in gpus() {
        let without = (Precision::Bf16, Some(Rounding::Stochastic { seed: 7 }));
        for (precision, rounding) in HALVES.map(|precision| (precision, None)).into_iter().chain([without]) {
            for micro_batches in [1, 2] {
                let groups = || {
                    let groups = ParamGroups::from(Recipe::adamw(1e-2).mgup())
                        .with_precision(precision)
                        .with_accumulation(micro_batches);
                    rounding.map_or(groups.clone(), |rounding| groups.without_masters(rounding))
                };
                let own = Own::new(&gpu, precision);
                let mut arenas = build(&gpu, groups());
                // What the caller has is rounded, and so must the masters in arenas be.
                for (i, spec) in specs().iter().enumerate() {
                    let rounded = precision.decode(&precision.encode(&verify::params(SIZES[i])), SIZES[i]);
                    arenas.write_param(&spec.name, &rounded).unwrap();
                }
                let mut optimizer =
                    GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups()).unwrap();
                for t in 1..=4 {
                    for (i, spec) in specs().iter().enumerate() {
                        own.fill(&gpu, own.grads[i].0, precision, &grad(i, t));
                        arenas.write_grad(&spec.name, &grad(i, t)).unwrap();
                    }
                    optimizer.step_with(&own.slices()).unwrap();
                    arenas.step().unwrap();
                    if t == 2 {
                        // Through a file and back, into others.
                        let (specs, slices) = (specs(), own.slices());
                        let params: Vec<_> = specs
                            .iter()
                            .zip(&slices)
                            .map(|(spec, buffers)| (spec.name.as_str(), &spec.shape[..], buffers.param))
                            .collect();
                        optimizer.save_params(&path, &params, Default::default()).unwrap();
                        let mut file = wgpu_optim::Checkpoint::open(&path).unwrap();
                        assert_eq!(file.params().len(), specs.len());
                        for spec in specs.iter().filter(|_| rounding.is_none()) {
                            let master = optimizer.read_state_blocking(&spec.name, "master").unwrap();
                            assert_eq!(file.read_param(&spec.name).unwrap(), master);
                        }
                        optimizer = optimizer.sibling_blocking(&specs, groups()).unwrap();
                        optimizer.load(&path).unwrap();
                        arenas.save(&path).unwrap();
                        arenas = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
                    }
                }
                let bytes = common::read(&gpu, &own.buffer);
                let mut used = vec![false; own.size as usize];
                for (i, spec) in specs().iter().enumerate() {
                    let what = format!("{}: {precision:?}, {micro_batches}, {}", gpu.name, spec.name);
                    let (offset, _) = own.params[i];
                    let size = precision.bytes() as usize * SIZES[i];
                    let found = &bytes[offset as usize..][..size];
                    let expected = stored(&gpu, arenas.param(&spec.name).unwrap());
                    assert!(found == &expected[..size], "{what}");
                    if rounding.is_none() {
                        let master = optimizer.read_state_blocking(&spec.name, "master").unwrap();
                        assert!(master == arenas.read_param_blocking(&spec.name).unwrap(), "{what}: masters");
                    }
                    for (offset, size) in [own.params[i], own.grads[i]] {
                        used[offset as usize..][..size as usize].fill(true);
                    }
                }
                let touched = bytes.iter().zip(&used).filter(|(byte, used)| !**used && **byte != 0xa5);
                assert_eq!(touched.count(), 0, "{}: {precision:?}", gpu.name);
            }
        }
    }
}

#[test]
fn a_file_of_f32_goes_on_in_two_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let mut full = build(gpu, Recipe::adamw(1e-2));
    full.step().unwrap();
    full.save(&path).unwrap();
    let mut half = build(gpu, ParamGroups::from(Recipe::adamw(1e-2)).with_precision(Precision::Bf16));
    half.load(&path).unwrap();
    for spec in specs() {
        let master = full.read_param_blocking(&spec.name).unwrap();
        assert_eq!(half.read_param_blocking(&spec.name).unwrap(), master);
        assert_eq!(stored(gpu, half.param(&spec.name).unwrap()), Precision::Bf16.encode(&master));
    }
}

#[test]
fn nan_is_rounded_to_nan_whatever_its_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    // A payload below what two bytes hold would round to infinity, and a full one to zero. No kernel computes with a master
    // that a file brings, so none of these becomes another NaN before it is rounded.
    let bits = [0x7f80_0001u32, 0x7f80_7fff, 0x7f80_ffff, 0x7fbf_ffff, 0x7fc0_0000, 0x7fff_8000, 0x7fff_ffff];
    let signs = [0, 1 << 31];
    let values: Vec<f32> = signs.iter().flat_map(|sign| bits.map(|bits| f32::from_bits(bits | sign))).collect();
    let specs = [TensorSpec::new("w", [values.len()])];
    for gpu in gpus() {
        let new = |groups: ParamGroups| GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups).unwrap();
        let full = new(Recipe::lion(0.0).into());
        full.write_param("w", &values).unwrap();
        full.save(&path).unwrap();
        for precision in HALVES {
            let mut half = new(ParamGroups::from(Recipe::lion(0.0)).with_precision(precision));
            half.load(&path).unwrap();
            let found = stored(&gpu, half.param("w").unwrap());
            for (found, value) in precision.decode(&found, values.len()).iter().zip(&values) {
                assert!(found.is_nan(), "{}: {precision:?}: {:08x} is {found}", gpu.name, value.to_bits());
            }
        }
    }
}

#[test]
fn slices_of_another_precision_are_refused() {
    let gpu = &gpus()[0];
    let own = Own::new(gpu, Precision::F32);
    let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_precision(Precision::F16);
    let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups.clone()).unwrap();
    let message = optimizer.step_with(&own.slices()).unwrap_err().to_string();
    assert!(message.contains("of f16"), "{message}");
    let stateless = GpuOptimizer::stateless_blocking(&gpu.device, &gpu.queue, &specs(), groups);
    assert!(stateless.unwrap_err().to_string().contains("masters"));
}

#[test]
fn a_first_step_that_is_dropped_takes_no_masters() {
    let gpu = &gpus()[0];
    let own = Own::new(gpu, Precision::F16);
    let groups = ParamGroups::from(Recipe::lion(0.0)).with_precision(Precision::F16);
    let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    let before = common::read(gpu, &own.buffer);
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    optimizer.record_with(&mut encoder, &own.slices()).unwrap();
    drop(encoder);
    optimizer.step_with(&own.slices()).unwrap();
    assert!(common::read(gpu, &own.buffer) == before, "a rate of 0 changes nothing");
}
