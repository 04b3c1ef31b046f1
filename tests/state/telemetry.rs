//! What telemetry says about a step is what the step did.

use crate::common::{self, Gpu, gpus};
use wgpu_optim::{
    Error, GpuOptimizer, GradScaler, NonFinite, ParamGroups, Recipe, StepLength, Telemetry, TensorBuffers, TensorSlice,
    TensorSpec, reference, verify, wgpu,
};

const SHAPES: [(&str, &[usize]); 4] = [("a", &[11]), ("b", &[24, 20]), ("c", &[5000]), ("d", &[70_001])];

fn specs() -> Vec<TensorSpec> {
    SHAPES.iter().map(|(name, shape)| TensorSpec::new(*name, *shape)).collect()
}

fn param(i: usize) -> Vec<f32> {
    verify::params(specs()[i].numel() as usize)
}

fn grad(i: usize, t: u64) -> Vec<f32> {
    verify::grads(specs()[i].numel() as usize, t + 100 * i as u64)
}

fn build(gpu: &Gpu, groups: ParamGroups) -> GpuOptimizer {
    let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    (0..SHAPES.len()).for_each(|i| optimizer.write_param(SHAPES[i].0, &param(i)).unwrap());
    optimizer
}

fn write_grads(optimizer: &GpuOptimizer, t: u64) {
    (0..SHAPES.len()).for_each(|i| optimizer.write_grad(SHAPES[i].0, &grad(i, t)).unwrap());
}

fn wait(gpu: &Gpu, optimizer: &GpuOptimizer) -> Telemetry {
    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    optimizer.take_telemetry().expect("it has arrived").unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

fn assert_close(found: f32, expected: f64, what: &str) {
    assert!((f64::from(found) - expected).abs() <= 2e-5 * expected + 1e-9, "{what}: {found}, {expected}");
}

#[test]
fn it_says_what_the_step_did() {
    for gpu in gpus() {
        for name in [
            "adamw",
            "cautious-adamw",
            "mgup-adamw",
            "mgup-adamw-approximate",
            "mgup-adamw-random",
            "mgup-lion",
            "grams-adamw",
            "mgup-adago",
        ] {
            let (_, recipe) = verify::recipes().into_iter().find(|(known, _)| known == name).unwrap();
            let groups = ParamGroups::from(recipe).with_telemetry(2).with_max_grad_norm(1e-3);
            let mut optimizer = build(&gpu, groups);
            let mut twins: Vec<_> = specs()
                .iter()
                .enumerate()
                .map(|(i, spec)| reference::Tensor::with_shape(recipe, spec, param(i)).unwrap())
                .collect();
            for t in 1..=3 {
                let before: Vec<_> = SHAPES.map(|(name, _)| optimizer.read_param_blocking(name).unwrap()).into();
                write_grads(&optimizer, t);
                optimizer.step().unwrap();
                let factor = reference::clip_factor(optimizer.read_grad_norm_blocking().unwrap(), 1e-3);
                let steps: Vec<_> = twins
                    .iter_mut()
                    .enumerate()
                    .map(|(i, twin)| twin.step(&grad(i, t).iter().map(|g| factor * g).collect::<Vec<_>>()))
                    .collect();
                if t == 2 {
                    gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
                    assert!(optimizer.take_telemetry().is_none());
                    continue;
                }
                let found = wait(&gpu, &optimizer);
                assert_eq!(found.step, t);
                assert_eq!(found.guarded.unwrap(), optimizer.read_guarded_blocking().unwrap());
                for (i, tensor) in found.tensors.iter().enumerate() {
                    let what = format!("{}: {name}, {}, {t}", gpu.name, tensor.name);
                    let after = optimizer.read_param_blocking(&tensor.name).unwrap();
                    let selected = optimizer.read_selected_blocking(&tensor.name).unwrap();
                    assert_eq!((tensor.name.as_str(), tensor.numel), (SHAPES[i].0, before[i].len() as u64));
                    assert_eq!((tensor.k, tensor.selected), (selected.k, selected.count), "{what}");
                    assert_eq!((tensor.candidates, tensor.missed), (selected.candidates, selected.missed));
                    assert_eq!(tensor.non_finite, 0);
                    let moved = before[i].iter().zip(&after).map(|(b, a)| f64::from(a - b));
                    assert_close(tensor.update_norm, norm(moved), &what);
                    assert_close(tensor.grad_norm, norm(grad(i, t).iter().map(|&g| g.into())), &what);
                    let aligned = steps[i].score.iter().filter(|&&s| s >= f32::MIN_POSITIVE).count();
                    let difference = f64::from(tensor.alignment) * after.len() as f64 - aligned as f64;
                    assert!(difference.abs() <= 4.0, "{what}: {difference}");
                    let is_random = name.ends_with("-random");
                    assert_eq!(tensor.threshold.is_some(), name.starts_with("mgup") && !is_random, "{what}");
                    let own = optimizer.recipe_of(&tensor.name).unwrap();
                    assert_eq!(tensor.lengths.is_some(), own.base.newton_schulz().is_none(), "{what}");
                    if let Some([plain, taken]) = tensor.lengths {
                        let scaled = |by: &[f32]| -> [f64; 3] {
                            let all = || steps[i].direction.iter().zip(by).map(|(u, phi)| f64::from(u * phi));
                            let dot = all().zip(grad(i, t)).map(|(u, g)| u * f64::from(g)).sum();
                            [all().map(f64::abs).sum(), norm(all()), dot]
                        };
                        let (ones, phi) = (scaled(&vec![1.0; after.len()]), scaled(&steps[i].phi));
                        let of = |step: StepLength| [step.l1, step.l2, step.descent].map(f64::from);
                        for ((plain, taken), (one, phi)) in
                            of(plain).into_iter().zip(of(taken)).zip(ones.into_iter().zip(phi))
                        {
                            let error = (taken / plain - phi / one).abs();
                            assert!(error <= 2e-3, "{what}: {taken} / {plain}, not {phi} / {one}");
                        }
                        // What was taken is what the parameters moved, but for the decay.
                        assert!((taken.l2 - tensor.update_norm).abs() <= 0.2 * tensor.update_norm, "{what}: {taken:?}");
                    }
                    if let Some(threshold) = tensor.threshold {
                        let alpha = recipe.policy.factors().0 as f32;
                        let scores = || steps[i].score.iter().zip(&steps[i].phi);
                        let lowest = scores().filter(|(_, phi)| **phi == alpha).fold(f32::MAX, |x, (s, _)| x.min(*s));
                        let highest = scores().filter(|(_, phi)| **phi != alpha).fold(f32::MIN, |x, (s, _)| x.max(*s));
                        let near = 1e-4 * threshold.abs() + 1e-12;
                        assert!(
                            highest - near <= threshold && threshold <= lowest + near,
                            "{what}: {highest}, {threshold}, {lowest}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn it_counts_what_is_not_finite_and_names_what_was_skipped() {
    for gpu in gpus() {
        for policy in [NonFinite::Propagate, NonFinite::Skip, NonFinite::Error] {
            let groups = ParamGroups::from(Recipe::adamw(1e-2).mgup()).with_telemetry(1).with_non_finite(policy);
            let mut optimizer = build(&gpu, groups);
            write_grads(&optimizer, 1);
            let mut poisoned = grad(3, 1);
            for (i, value) in [(0, f32::NAN), (9000, f32::INFINITY), (70_000, f32::NEG_INFINITY)] {
                poisoned[i] = value;
            }
            optimizer.write_grad("d", &poisoned).unwrap();
            optimizer.step().unwrap();
            gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
            let found = optimizer.take_telemetry().unwrap();
            if policy == NonFinite::Error {
                let error = found.unwrap_err();
                assert!(matches!(&error, Error::NonFinite { tensor, steps: 1 } if tensor == "d"), "{error}");
                continue;
            }
            let found = found.unwrap();
            assert_eq!(found.tensors.iter().map(|t| t.non_finite).collect::<Vec<_>>(), [0, 0, 0, 3]);
            // Nothing is taken in a skipped step, and nothing is measured of what is not finite.
            assert_eq!(found.tensors[0].lengths.is_some(), policy == NonFinite::Propagate, "{}", gpu.name);
            assert_eq!(found.tensors[3].lengths, None, "{}", gpu.name);
            let finite = poisoned.iter().filter(|g| g.is_finite()).map(|&g| g.into());
            assert_close(found.tensors[3].grad_norm, norm(finite), &gpu.name);
            let moved = found.tensors.iter().filter(|t| t.update_norm != 0.0).count();
            assert_eq!(moved, if policy == NonFinite::Skip { 0 } else { 4 }, "{policy:?}");
            assert!(found.summary().contains("3 gradients are not finite"), "{}", found.summary());
            assert_eq!(found.summary().contains("skipped"), policy == NonFinite::Skip);
        }
    }
}

#[test]
fn tensors_that_a_step_leaves_out_are_left_out() {
    for gpu in gpus() {
        let groups = ParamGroups::from(Recipe::adamw(1e-2))
            .with_telemetry(1)
            .with_accumulation(2)
            .with_grad_scaler(GradScaler::default().init(4.0));
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        let own = |values: Vec<f32>| {
            let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * values.len() as u64,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
            buffer
        };
        let buffers: Vec<_> = (0..SHAPES.len()).map(|i| (own(param(i)), own(grad(i, 1)))).collect();
        for without in [None, Some(2)] {
            for _ in 0..2 {
                let given = |i: usize| {
                    let (param, grad) = &buffers[i];
                    let slices = TensorBuffers::new(TensorSlice::whole(param), TensorSlice::whole(grad));
                    (Some(i) != without).then_some(slices)
                };
                optimizer.step_with(&(0..SHAPES.len()).map(given).collect::<Vec<_>>()).unwrap();
            }
            let found = wait(&gpu, &optimizer);
            let names: Vec<_> = found.tensors.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names, if without.is_some() { vec!["a", "b", "d"] } else { vec!["a", "b", "c", "d"] });
            // The mean of two equal micro-batches, the scale of the loss undone.
            let expected = norm(grad(0, 1).iter().map(|&g| f64::from(g) / 4.0));
            assert_close(found.tensors[0].grad_norm, expected, &gpu.name);
            assert!(optimizer.take_telemetry().is_none());
        }
    }
}

#[test]
fn what_lies_behind_a_tensor_is_counted_nowhere() {
    // Whole vectors of the caller's: 3, 2 and 1 of the last four coordinates are nobody's.
    let sizes = [5, 10, 11, 4097, 70_002, 70_003];
    let specs = sizes.map(|n| TensorSpec::new(format!("t{n}"), [n]));
    let recipes = ["adamw", "cautious-adamw", "mgup-adamw", "mgup-adamw-approximate", "mgup-lion"];
    for gpu in gpus() {
        let buffer = |mut values: Vec<f32>, behind: f32| {
            values.resize(values.len().next_multiple_of(4), behind);
            let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * values.len() as u64,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
            buffer
        };
        let groups = |name: &str| {
            ParamGroups::from(name.parse::<Recipe>().unwrap())
                .with_telemetry(1)
                .with_non_finite(NonFinite::Skip)
                .with_max_grad_norm(1.0)
        };
        // What these have compiled is compiled for all.
        let compiled = [
            GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, groups("adamw")).unwrap(),
            GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, groups("adamw")).unwrap(),
        ];
        for name in recipes {
            for behind in [1e20, f32::NAN] {
                let [mut arenas, mut optimizer] =
                    compiled.each_ref().map(|one| one.sibling_blocking(&specs, groups(name)).unwrap());
                let params = sizes.map(verify::params);
                let grads = sizes.map(|n| verify::grads(n, n as u64));
                for (spec, (param, grad)) in specs.iter().zip(params.iter().zip(&grads)) {
                    arenas.write_param(&spec.name, param).unwrap();
                    arenas.write_grad(&spec.name, grad).unwrap();
                }
                let params = params.map(|values| buffer(values, behind));
                let grads = grads.map(|values| buffer(values, behind));
                let pairs = params.iter().zip(&grads);
                let slices: Vec<_> =
                    pairs.map(|(p, g)| TensorBuffers::new(TensorSlice::whole(p), TensorSlice::whole(g))).collect();
                arenas.step().unwrap();
                optimizer.step_with(&slices).unwrap();
                let what = format!("{}: {name}, {behind} behind", gpu.name);
                let [found, expected] = [&optimizer, &arenas].map(|optimizer| wait(&gpu, optimizer));
                assert_eq!(found, expected, "{what}");
                assert!(!found.guarded.unwrap().skipped, "{what}");
                for (spec, param) in specs.iter().zip(&params) {
                    let found: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(&gpu, param));
                    let expected = arenas.read_param_blocking(&spec.name).unwrap();
                    assert!(found[..expected.len()] == expected, "{what}: {}", spec.name);
                }
            }
        }
    }
}

#[test]
fn it_arrives_without_waiting() {
    let gpu = &gpus()[0];
    let mut optimizer = build(gpu, ParamGroups::from(Recipe::adamw(1e-3).mgup()).with_telemetry(1));
    write_grads(&optimizer, 1);
    let mut arrived = Vec::new();
    let begin = std::time::Instant::now();
    while arrived.len() < 10 && begin.elapsed() < std::time::Duration::from_secs(60) {
        optimizer.step().unwrap();
        while let Some(found) = optimizer.take_telemetry() {
            arrived.push(found.unwrap().step);
        }
    }
    assert!(arrived.len() >= 10, "steps arrive while others are recorded: {arrived:?}");
    assert!(arrived.is_sorted());
}
