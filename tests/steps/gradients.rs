//! What happens to gradients before the step: clipping, scaling, micro-batches, and steps that are skipped.

use crate::common::{self, Gpu, gpus, shared_gpus};
use wgpu_optim::base::{
    AdaGrad, AdaGradNorm, AdaMomentum, Adafactor, Adam, Adan, Base, LaMAdam, NAdam, Namo, NamoD, NorMuon, RAdam,
    ScheduleFreeAdamW, ScheduleFreeSgd, Sgd,
};
use wgpu_optim::{
    Average, Error, GpuOptimizer, GradScaler, LrSchedule, NonFinite, ParamGroups, Precision, Recipe, Rounding,
    TensorBuffers, TensorSlice, TensorSpec, reference, verify, wgpu,
};

const SHAPES: [(&str, &[usize]); 4] = [("a", &[10]), ("b", &[24, 20]), ("c", &[5000]), ("d", &[70_000])];

fn specs() -> Vec<TensorSpec> {
    SHAPES.iter().map(|(name, shape)| TensorSpec::new(*name, *shape)).collect()
}

/// Every way through the kernels, with few that orthogonalise: these compile slowly on some software adapters.
fn recipes() -> Vec<(String, Recipe)> {
    let names = [
        "adamw",
        "adamw-torch",
        "cautious-adamw",
        "mgup-adamw",
        "mgup-adamw-approximate",
        "grams",
        "lion",
        "mgup-lion",
        "mgup-adago",
    ];
    let all = verify::recipes().into_iter();
    all.filter(|(name, _)| names.contains(&name.as_str())).collect()
}

fn param(i: usize) -> Vec<f32> {
    verify::params(specs()[i].numel() as usize)
}

fn grad(i: usize, t: u64) -> Vec<f32> {
    verify::grads(specs()[i].numel() as usize, t + 100 * i as u64)
}

fn all_grads(t: u64) -> Vec<Vec<f32>> {
    (0..SHAPES.len()).map(|i| grad(i, t)).collect()
}

/// Summed in f64: the GPU sums in a tree, and not one after the other.
fn norm(grads: &[Vec<f32>]) -> f32 {
    grads.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32
}

fn twins(recipe: Recipe) -> Vec<reference::Tensor<f32>> {
    let twin = |(i, spec)| reference::Tensor::with_shape(recipe, spec, param(i)).unwrap();
    specs().iter().enumerate().map(twin).collect()
}

fn build(gpu: &Gpu, groups: impl Into<ParamGroups>) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&specs(), groups).unwrap();
    for (i, (name, _)) in SHAPES.iter().enumerate() {
        optimizer.write_param(name, &param(i)).unwrap();
    }
    optimizer
}

fn write_grads(optimizer: &GpuOptimizer, grads: &[Vec<f32>]) {
    for ((name, _), grad) in SHAPES.iter().zip(grads) {
        optimizer.write_grad(name, grad).unwrap();
    }
}

/// Everything that a step may change, as bits.
fn everything(optimizer: &GpuOptimizer) -> Vec<Vec<u32>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let mut all = Vec::new();
    for (name, _) in SHAPES {
        all.push(bits(optimizer.read_param_blocking(name).unwrap()));
        for state in optimizer.state_names(name).unwrap() {
            all.push(bits(optimizer.read_state_blocking(name, state).unwrap()));
        }
    }
    all
}

fn assert_follows(optimizer: &GpuOptimizer, twins: &[reference::Tensor<f32>], what: &str) {
    for ((name, _), twin) in SHAPES.iter().zip(twins) {
        let matrix = twin.recipe.base.newton_schulz().is_some();
        let tolerance = if matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
        let found = optimizer.read_param_blocking(name).unwrap();
        // A score within rounding of a threshold may be decided either way.
        let mut sorted: Vec<usize> = (0..found.len()).collect();
        let error = |i: &usize| {
            let allowed = tolerance.0 + tolerance.1 * f64::from(twin.param[*i].abs());
            (f64::from(found[*i]) - f64::from(twin.param[*i])).abs() / allowed
        };
        assert!(found.iter().all(|x| x.is_finite()), "{what}, {name}");
        sorted.retain(|i| error(i) > 1.0);
        assert!(sorted.len() <= found.len() / 20_000, "{what}, {name}: {} differ", sorted.len());
    }
}

#[test]
fn a_step_with_a_gradient_that_is_not_finite_changes_nothing() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in recipes() {
            for clips in [false, true] {
                let mut groups = ParamGroups::from(recipe).with_non_finite(NonFinite::Skip);
                if clips {
                    groups = groups.with_max_grad_norm(1e9);
                }
                let mut optimizer = build(gpu, groups);
                let mut twins = twins(recipe);
                let what = format!("{}: {name}, clips: {clips}", gpu.name);
                let bad = [(0, 9, f32::NAN), (3, 69_999, f32::INFINITY), (1, 0, f32::NEG_INFINITY)];
                for (t, (tensor, at, value)) in (1..).zip(bad) {
                    let grads = all_grads(t);
                    write_grads(&optimizer, &grads);
                    optimizer.step().unwrap();
                    twins.iter_mut().zip(&grads).for_each(|(twin, grad)| {
                        twin.step(grad);
                    });
                    assert!(!optimizer.read_guarded_blocking().unwrap().skipped, "{what}");

                    let before = everything(&optimizer);
                    let mut poisoned = all_grads(t + 50);
                    poisoned[tensor][at] = value;
                    write_grads(&optimizer, &poisoned);
                    optimizer.poison_scratch();
                    optimizer.step().unwrap();
                    let found = optimizer.read_guarded_blocking().unwrap();
                    assert!(found.skipped && found.skipped_steps == t && !found.grad_norm.is_finite());
                    assert!(everything(&optimizer) == before, "{what}: {value} at {at} of {tensor}");
                    for (name, _) in SHAPES {
                        assert_eq!(optimizer.steps(name).unwrap(), 2 * t);
                        assert_eq!(optimizer.read_steps_blocking(name).unwrap(), t);
                        if !matches!(optimizer.read_selected_blocking(name).unwrap().k, 0) {
                            assert_eq!(optimizer.read_selected_blocking(name).unwrap().count, 0, "{what}");
                        }
                    }
                }
                assert_follows(&optimizer, &twins, &what);
            }
        }
    }
}

#[test]
fn a_norm_that_overflows_is_not_a_gradient_that_does() {
    for gpu in shared_gpus().iter() {
        let groups = ParamGroups::from(Recipe::lion(1e-2)).with_non_finite(NonFinite::Skip);
        let mut optimizer = build(gpu, groups);
        let mut twins = twins(Recipe::lion(1e-2));
        let mut grads = all_grads(1);
        grads[2].fill(3e38);
        write_grads(&optimizer, &grads);
        optimizer.step().unwrap();
        twins.iter_mut().zip(&grads).for_each(|(twin, grad)| {
            twin.step(grad);
        });
        let found = optimizer.read_guarded_blocking().unwrap();
        assert!(!found.skipped && found.grad_norm.is_infinite(), "{}: {found:?}", gpu.name);
        assert_follows(&optimizer, &twins, &gpu.name);
    }
}

#[test]
fn bias_corrections_on_the_gpu_equal_those_of_the_host() {
    for gpu in shared_gpus().iter() {
        for (betas, t) in [
            ([0.9, 0.999], 1),
            ([0.9, 0.999], 7),
            ([0.0, 0.99999], 3),
            ([0.95, 0.0], 1),
            ([0.9, 0.999], 700),
            ([0.99, 0.9999], 100_000),
        ] {
            let mut recipe: Recipe = "adamw-torch".parse().unwrap();
            let wgpu_optim::Base::Adamw(b) = &mut recipe.base else { unreachable!() };
            (b.betas, b.lr, b.eps) = (betas, 0.1, 1e-3);
            let run = |groups: ParamGroups| {
                let mut optimizer = build(gpu, groups);
                write_grads(&optimizer, &all_grads(1));
                optimizer.set_steps(t - 1);
                optimizer.step().unwrap();
                optimizer.read_param_blocking("c").unwrap()
            };
            let host = run(recipe.into());
            let own = run(ParamGroups::from(recipe).with_non_finite(NonFinite::Skip));
            let (largest, failure) = verify::compare_within((1e-7, 1e-6), &own, &host, None);
            assert_eq!(failure, None, "{}: {betas:?}, {t}: {largest}", gpu.name);
        }
    }
}

#[test]
fn bias_corrections_on_the_gpu_are_exact_after_any_number_of_steps() {
    use wgpu_optim::base::{AdamW, EpsPlacement};
    const STEPS: [u64; 13] = [1, 2, 19, 20, 100, 345, 500, 693, 694, 1000, 5000, 100_000, 10_000_000];
    // Both corrections are 1 then.
    const ENDLESS: u64 = 1_000_000_000;
    // The step with its correction and no ε, ε with its correction alone, and the decay.
    let (params, m, v) = ([0.0, 0.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 1.0]);
    for gpu in shared_gpus().iter() {
        for betas in [[0.9, 0.999], [0.95, 0.98], [0.99, 0.9999]] {
            let eps = 1e-3;
            let after = EpsPlacement::AfterBiasCorrection;
            let base = AdamW::new(1.0).betas(betas).eps(eps).weight_decay(64.0).eps_placement(after);
            let groups = ParamGroups::from(base).with_non_finite(NonFinite::Skip);
            let specs = [TensorSpec::new("w", [3])];
            let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
            let mut moved = |t: u64| -> Vec<f64> {
                optimizer.write_param("w", &params).unwrap();
                optimizer.write_state("w", "exp_avg", &m).unwrap();
                optimizer.write_state("w", "exp_avg_sq", &v).unwrap();
                optimizer.set_steps(t - 1);
                optimizer.step().unwrap();
                let found = optimizer.read_param_blocking("w").unwrap();
                found.iter().zip(params).map(|(&after, before)| f64::from(before - after)).collect()
            };
            let uncorrected = moved(ENDLESS);
            for t in STEPS {
                let [c1, c2] = betas.map(|beta: f64| -(t as f64 * beta.ln()).exp_m1());
                let root = c2.sqrt();
                let second = betas[1].sqrt();
                let expected = [root / c1 * (second + eps) / (second + eps * root), 1.0 / c1, root / c1];
                let found = moved(t);
                for (i, expected) in expected.into_iter().enumerate() {
                    let error = (found[i] / uncorrected[i] / expected - 1.0).abs();
                    assert!(error <= 1e-6, "{}: {betas:?}, step {t}, at {i}: off by {error:.1e}", gpu.name);
                }
            }
        }
    }
}

/// Bases whose scalars depend on the step: the GPU computes them where steps may be skipped, and each in its own way.
#[test]
fn scalars_follow_the_steps_that_were_taken() {
    let bases: [Base; 16] = [
        Sgd::new(1e-2).momentum(0.9).dampening(0.5).into(),
        AdaGrad::new(1e-2).lr_decay(0.3).into(),
        Adam::new(1e-2).into(),
        NAdam::new(1e-2).into(),
        NAdam::new(1e-2).momentum_decay(2.0).betas([0.5, 0.9]).into(),
        RAdam::new(1e-2).into(),
        AdaMomentum::new(1e-2).into(),
        Adan::new(1e-2).weight_decay(0.1).into(),
        Namo::new(1e-2).weight_decay(0.1).into(),
        NamoD::new(1e-2).weight_decay(0.1).into(),
        NorMuon::new(1e-2).weight_decay(0.1).into(),
        Adafactor::new(1e-1).weight_decay(0.1).into(),
        AdaGradNorm::new(1e-1).into(),
        LaMAdam::new(1e-2).into(),
        ScheduleFreeAdamW::new(1e-2).r(0.5).weight_decay(0.1).into(),
        ScheduleFreeSgd::new(1e-1).into(),
    ];
    let spec = [TensorSpec::new("w", [15, 20])];
    for gpu in shared_gpus().iter() {
        for base in bases {
            let recipe = Recipe::from(base);
            let groups = ParamGroups::from(recipe).with_non_finite(NonFinite::Skip);
            let mut optimizer = gpu.optimizer(&spec, groups).unwrap();
            let mut twin = reference::Tensor::with_shape(recipe, &spec[0], verify::params(300)).unwrap();
            optimizer.write_param("w", &twin.param).unwrap();
            let is_matrix = recipe.base.newton_schulz().is_some();
            let tolerance = if is_matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
            // RAdam divides by its second moment from the sixth step on, and has other formulas for late ones.
            for (steps, count) in [(0, 9), (500, 2), (3_000, 2), (1_000_000, 2)] {
                if steps > 0 {
                    optimizer.set_steps(steps);
                    twin.steps = steps;
                }
                for t in 1..=count {
                    optimizer.write_grad("w", &[f32::NAN; 300]).unwrap();
                    optimizer.step().unwrap();
                    let grad = verify::grads(300, t);
                    optimizer.write_grad("w", &grad).unwrap();
                    optimizer.step().unwrap();
                    twin.step(&grad);
                    let found = optimizer.read_param_blocking("w").unwrap();
                    let (_, wrong) = verify::compare_within(tolerance, &found, &twin.param, None);
                    assert_eq!(wrong, None, "{}: {base:?} in step {}", gpu.name, twin.steps);
                }
            }
        }
    }
}

#[test]
fn a_count_of_steps_that_is_set_forgets_those_that_were_skipped() {
    for gpu in shared_gpus().iter() {
        let recipe: Recipe = "adamw-torch".parse().unwrap();
        let groups = || ParamGroups::from(recipe).with_non_finite(NonFinite::Skip);
        let (mut optimizer, mut other) = (build(gpu, groups()), build(gpu, groups()));
        let mut poisoned = all_grads(1);
        poisoned[0][3] = f32::NAN;
        write_grads(&optimizer, &poisoned);
        for _ in 0..3 {
            optimizer.step().unwrap();
        }
        assert_eq!(optimizer.read_steps_blocking("a").unwrap(), 0);
        for optimizer in [&mut optimizer, &mut other] {
            optimizer.set_steps(5);
            for (name, _) in SHAPES {
                assert_eq!(optimizer.read_steps_blocking(name).unwrap(), 5, "{}: {name}", gpu.name);
            }
            write_grads(optimizer, &all_grads(2));
            optimizer.step().unwrap();
        }
        assert!(everything(&optimizer) == everything(&other), "{}", gpu.name);
        assert_eq!(optimizer.read_steps_blocking("d").unwrap(), 6);
    }
}

#[test]
fn a_gradient_that_only_its_factor_makes_infinite_skips_the_step() {
    for gpu in shared_gpus().iter() {
        let skip = || ParamGroups::from(Recipe::adamw(1e-2)).with_non_finite(NonFinite::Skip);
        for groups in [skip(), skip().with_max_grad_value(1.0), skip().with_max_grad_norm(1.0)] {
            let mut optimizer = build(gpu, groups);
            let mut grads = all_grads(1);
            grads[3][68_999] = -1e10;
            write_grads(&optimizer, &grads);
            let before = everything(&optimizer);
            optimizer.set_grad_scale(1e30).unwrap();
            optimizer.step().unwrap();
            let found = optimizer.read_guarded_blocking().unwrap();
            assert!(found.skipped, "{}: {found:?}", gpu.name);
            assert!(everything(&optimizer) == before, "{}", gpu.name);
            optimizer.set_grad_scale(1.0).unwrap();
            optimizer.step().unwrap();
            let found = optimizer.read_guarded_blocking().unwrap();
            assert!(!found.skipped && found.skipped_steps == 1, "{}: {found:?}", gpu.name);
        }
    }
}

#[test]
fn the_scale_of_the_loss_stays_a_number_that_divides() {
    for gpu in shared_gpus().iter() {
        let scaler = GradScaler::default().init(1e-29).backoff(0.25).interval(1000);
        let recipe = Recipe::adamw(1e-2);
        let mut optimizer = build(gpu, ParamGroups::from(recipe).with_grad_scaler(scaler));
        let mut twins = twins(recipe);
        let mut poisoned = all_grads(1);
        poisoned[1][7] = f32::INFINITY;
        write_grads(&optimizer, &poisoned);
        for expected in [2.5e-30, 1e-30, 1e-30] {
            optimizer.step().unwrap();
            assert_eq!(optimizer.read_guarded_blocking().unwrap().loss_scale, expected, "{}", gpu.name);
        }
        // Scaled, some would be subnormal, which an adapter may flush.
        let kept = |g: f32| if g.abs() < 1e-6 { 0.0 } else { g };
        let grads: Vec<Vec<f32>> =
            all_grads(2).into_iter().map(|grads| grads.into_iter().map(kept).collect()).collect();
        let scaled: Vec<Vec<f32>> = grads.iter().map(|g| g.iter().map(|g| 1e-30 * g).collect()).collect();
        write_grads(&optimizer, &scaled);
        optimizer.step().unwrap();
        assert!(!optimizer.read_guarded_blocking().unwrap().skipped, "{}", gpu.name);
        twins.iter_mut().zip(&grads).for_each(|(twin, grad)| {
            twin.step(grad);
        });
        assert_follows(&optimizer, &twins, &gpu.name);
    }
}

#[test]
fn a_skipped_step_is_an_error_once_where_it_is_to_be_one() {
    let gpu = &gpus()[0];
    let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_non_finite(NonFinite::Error);
    let mut optimizer = build(gpu, groups);
    write_grads(&optimizer, &all_grads(1));
    optimizer.step().unwrap();
    optimizer.read_guarded_blocking().unwrap();
    let mut poisoned = grad(2, 1);
    poisoned[4321] = f32::NAN;
    optimizer.write_grad("c", &poisoned).unwrap();
    // The error names the first of two.
    optimizer.write_grad("d", &vec![f32::INFINITY; 70_000]).unwrap();
    let before = everything(&optimizer);
    for _ in 0..2 {
        optimizer.step().unwrap();
    }
    let error = optimizer.read_guarded_blocking().unwrap_err();
    assert!(matches!(&error, Error::NonFinite { tensor, steps: 2 } if tensor == "c"), "{error}");
    assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped_steps, 2);
    assert!(everything(&optimizer) == before);
}

#[test]
fn tensors_count_the_skipped_steps_that_they_were_part_of() {
    for gpu in shared_gpus().iter() {
        let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_non_finite(NonFinite::Skip);
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        let mut twins = twins(Recipe::adamw(1e-2));
        let buffers: Vec<[wgpu::Buffer; 2]> = (0..SHAPES.len()).map(|i| [0, 1].map(|_| own(gpu, i))).collect();
        (0..SHAPES.len()).for_each(|i| fill(gpu, &buffers[i][0], &param(i)));
        // (left out, whether it overflows)
        let run = [(0, false), (1, true), (2, false), (9, true), (3, true), (9, false)];
        for (t, (without, overflows)) in (1..).zip(run) {
            for i in 0..SHAPES.len() {
                let mut grad = grad(i, t);
                grad[0] = if overflows && i != without { f32::INFINITY } else { grad[0] };
                fill(gpu, &buffers[i][1], &grad);
                if i != without && !overflows {
                    twins[i].step(&grad);
                }
            }
            let given = |i: usize| {
                let [param, grad] = &buffers[i];
                (i != without).then(|| TensorBuffers::new(TensorSlice::whole(param), TensorSlice::whole(grad)))
            };
            optimizer.step_with(&(0..SHAPES.len()).map(given).collect::<Vec<_>>()).unwrap();
            assert_eq!(optimizer.read_guarded_blocking().unwrap().skipped, overflows);
        }
        for (i, (name, _)) in SHAPES.iter().enumerate() {
            assert_eq!(optimizer.read_steps_blocking(name).unwrap(), twins[i].steps, "{name}");
            let found = read(gpu, &buffers[i][0]);
            assert_eq!(verify::compare(&found, &twins[i].param, None).1, None, "{}: {name}", gpu.name);
        }
    }
}

fn own(gpu: &Gpu, i: usize) -> wgpu::Buffer {
    gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4 * specs()[i].numel(),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    })
}

fn fill(gpu: &Gpu, buffer: &wgpu::Buffer, values: &[f32]) {
    gpu.queue.write_buffer(buffer, 0, bytemuck::cast_slice(values));
}

fn read(gpu: &Gpu, buffer: &wgpu::Buffer) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(&common::read(gpu, buffer))
}

#[test]
fn the_scaler_follows_its_rules() {
    for gpu in shared_gpus().iter() {
        let scaler = GradScaler::default().init(1024.0).growth(4.0).backoff(0.25).interval(3);
        let recipe = Recipe::adamw(1e-2).mgup();
        let mut optimizer = build(gpu, ParamGroups::from(recipe).with_grad_scaler(scaler));
        let mut twins = twins(recipe);
        let (mut scale, mut since) = (1024.0f32, 0);
        for t in 1..=12 {
            assert_eq!(optimizer.read_guarded_blocking().unwrap().loss_scale, scale, "{}: {t}", gpu.name);
            let grads = all_grads(t);
            let overflows = matches!(t, 2 | 9 | 10);
            let mut scaled: Vec<Vec<f32>> = grads.iter().map(|g| g.iter().map(|g| scale * g).collect()).collect();
            if overflows {
                scaled[1][3] = f32::NEG_INFINITY;
                (scale, since) = (scale * 0.25, 0);
            } else {
                twins.iter_mut().zip(&grads).for_each(|(twin, grad)| {
                    twin.step(grad);
                });
                since += 1;
                if since == 3 {
                    (scale, since) = (scale * 4.0, 0);
                }
            }
            write_grads(&optimizer, &scaled);
            optimizer.step().unwrap();
            let found = optimizer.read_guarded_blocking().unwrap();
            assert_eq!(found.skipped, overflows);
            if !overflows {
                let norm = norm(&grads);
                assert!((found.grad_norm - norm).abs() <= 1e-5 * norm, "{}: {found:?}", gpu.name);
            }
        }
        assert_follows(&optimizer, &twins, &gpu.name);
        optimizer.set_loss_scale(8.0).unwrap();
        assert_eq!(optimizer.read_guarded_blocking().unwrap().loss_scale, 8.0);
        // It stops where f32 would not hold the inverse of the next scale, which itself is no overflow.
        assert!(optimizer.set_loss_scale(1e38).is_err());
        optimizer.set_loss_scale(3e37).unwrap();
        write_grads(&optimizer, &all_grads(1));
        for _ in 0..4 {
            optimizer.step().unwrap();
        }
        assert_eq!(optimizer.read_guarded_blocking().unwrap().loss_scale, 3e37);
    }
}

#[test]
fn values_are_limited_before_the_norm_is_taken() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in recipes() {
            for max_norm in [None, Some(0.5)] {
                let mut groups = ParamGroups::from(recipe).with_max_grad_value(1e-2);
                if let Some(max_norm) = max_norm {
                    groups = groups.with_max_grad_norm(max_norm);
                }
                let mut optimizer = build(gpu, groups);
                optimizer.set_grad_scale(0.25).unwrap();
                let mut twins = twins(recipe);
                for t in 1..3 {
                    let grads = all_grads(t);
                    write_grads(&optimizer, &grads);
                    optimizer.step().unwrap();
                    let limited: Vec<Vec<f32>> =
                        grads.iter().map(|grad| grad.iter().map(|g| (0.25 * g).clamp(-1e-2, 1e-2)).collect()).collect();
                    let norm = norm(&limited);
                    let factor = max_norm.map_or(1.0, |max_norm| {
                        let found = optimizer.read_grad_norm_blocking().unwrap();
                        assert!((found - norm).abs() <= 1e-5 * norm, "{found}, {norm}");
                        reference::clip_factor(found, max_norm)
                    });
                    assert_eq!(factor < 1.0, max_norm.is_some());
                    for (twin, grad) in twins.iter_mut().zip(&limited) {
                        twin.step(&grad.iter().map(|g| factor * g).collect::<Vec<_>>());
                    }
                }
                assert_follows(&optimizer, &twins, &format!("{}: {name}, {max_norm:?}", gpu.name));
            }
        }
    }
}

#[test]
fn micro_batches_equal_a_step_with_their_mean() {
    for gpu in shared_gpus().iter() {
        for (name, recipe) in recipes().into_iter().filter(|(_, r)| r.base.newton_schulz().is_none()) {
            let groups = ParamGroups::from(recipe).with_accumulation(3).with_schedule(LrSchedule::linear(4, 0.5));
            let mut optimizer = build(gpu, groups);
            let mut twins = twins(recipe);
            for step in 0..2u64 {
                let lr = LrSchedule::linear(4, 0.5).factor(step) * recipe.lr();
                assert_eq!(optimizer.lr(0).unwrap(), lr);
                let mut sums = all_grads(9).into_iter().map(|g| vec![0.0f32; g.len()]).collect::<Vec<_>>();
                for micro in 0..3 {
                    let grads = all_grads(1 + 3 * step + micro);
                    for (sum, grad) in sums.iter_mut().zip(&grads) {
                        sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g);
                    }
                    assert_eq!(u64::from(optimizer.micro_batches()), micro);
                    let before = everything(&optimizer);
                    write_grads(&optimizer, &grads);
                    optimizer.step().unwrap();
                    assert_eq!(everything(&optimizer) == before, micro < 2, "{}: {name}", gpu.name);
                }
                assert_eq!(optimizer.recorded_steps(), step + 1);
                assert_eq!(optimizer.steps("a").unwrap(), step + 1);
                for (twin, sum) in twins.iter_mut().zip(&sums) {
                    twin.recipe = recipe.with_lr(lr);
                    twin.step(&sum.iter().map(|s| s * (1.0f32 / 3.0)).collect::<Vec<_>>());
                }
            }
            assert_follows(&optimizer, &twins, &format!("{}: {name}", gpu.name));
        }
    }
}

#[test]
fn unequal_micro_batches_average_by_their_weights() {
    let weights = [[32.0, 17.0, 5.0], [1.0, 0.25, 0.25]];
    for gpu in shared_gpus().iter() {
        for recipe in [Recipe::adamw(1e-2), Recipe::adamw(1e-2).mgup()] {
            let groups = || ParamGroups::from(recipe).with_accumulation(3);
            let (mut optimizer, mut twins) = (build(gpu, groups()), twins(recipe));
            for (step, weights) in (0..).zip(weights) {
                let mut sums = all_grads(9).into_iter().map(|g| vec![0.0f32; g.len()]).collect::<Vec<_>>();
                for (micro, weight) in (1..).zip(weights) {
                    let grads = all_grads(3 * step + micro);
                    for (sum, grad) in sums.iter_mut().zip(&grads) {
                        sum.iter_mut().zip(grad).for_each(|(sum, g)| *sum += weight as f32 * g);
                    }
                    write_grads(&optimizer, &grads);
                    optimizer.set_micro_batch_weight(weight).unwrap();
                    optimizer.step().unwrap();
                }
                let share = (1.0 / weights.iter().sum::<f64>()) as f32;
                for (twin, sum) in twins.iter_mut().zip(&sums) {
                    twin.step(&sum.iter().map(|s| s * share).collect::<Vec<_>>());
                }
            }
            assert_follows(&optimizer, &twins, &format!("{}: {recipe}", gpu.name));

            // Equal weights do not matter, and a power of two not even to the bit.
            let [mut plain, mut weighted] = [(); 2].map(|()| build(gpu, groups()));
            weighted.set_micro_batch_weight(4.0).unwrap();
            for optimizer in [&mut plain, &mut weighted] {
                write_grads(optimizer, &all_grads(1));
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                (0..6).for_each(|_| optimizer.record(&mut encoder).unwrap());
                gpu.queue.submit([encoder.finish()]);
            }
            assert!(everything(&plain) == everything(&weighted), "{}: {recipe}", gpu.name);
        }
    }
}

#[test]
fn weights_change_within_an_encoder_and_after_one_that_was_dropped() {
    for gpu in shared_gpus().iter() {
        let groups = || ParamGroups::from(Recipe::adamw(1e-2)).with_accumulation(2);
        let [mut together, mut apart] = [(); 2].map(|()| build(gpu, groups()));
        write_grads(&together, &all_grads(1));
        write_grads(&apart, &all_grads(1));
        let encoder = || gpu.device.create_command_encoder(&Default::default());
        let mut one = encoder();
        for weight in [3.0, 0.5, 2.0, 2.0] {
            together.set_micro_batch_weight(weight).unwrap();
            together.record(&mut one).unwrap();
            apart.set_micro_batch_weight(weight).unwrap();
            apart.step().unwrap();
        }
        gpu.queue.submit([one.finish()]);
        assert!(everything(&together) == everything(&apart), "{}", gpu.name);

        // What was dropped has told the GPU nothing.
        together.set_micro_batch_weight(7.0).unwrap();
        together.record(&mut encoder()).unwrap();
        let mut again = encoder();
        together.forget_micro_batches(&mut again);
        gpu.queue.submit([again.finish()]);
        apart.set_micro_batch_weight(7.0).unwrap();
        for weight in [7.0, 1.0] {
            for optimizer in [&mut together, &mut apart] {
                optimizer.set_micro_batch_weight(weight).unwrap();
                optimizer.step().unwrap();
            }
        }
        assert!(everything(&together) == everything(&apart), "{}", gpu.name);
    }
}

#[test]
fn weights_out_of_range_are_refused_and_change_nothing() {
    let gpu = &gpus()[0];
    let mut optimizer = build(gpu, ParamGroups::from(Recipe::adamw(1e-2)).with_accumulation(2));
    write_grads(&optimizer, &all_grads(1));
    for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(optimizer.set_micro_batch_weight(weight).unwrap_err().code(), "recipe");
    }
    optimizer.step().unwrap();
    // The sum of the weights is too large for the scale.
    optimizer.set_grad_scale(1e-20).unwrap();
    optimizer.set_micro_batch_weight(1e30).unwrap();
    let before = everything(&optimizer);
    let error = optimizer.step().unwrap_err();
    assert!(error.to_string().contains("grad_scale over the sum of weights"), "{error}");
    assert!(everything(&optimizer) == before);
    assert_eq!((optimizer.micro_batches(), optimizer.recorded_steps()), (1, 0));
    let error = build(gpu, Recipe::adamw(1e-2)).set_micro_batch_weight(2.0).unwrap_err();
    assert!(matches!(error, Error::SettingOff { setting: "`accumulation`", .. }), "{error}");
}

#[test]
fn micro_batches_of_callers_buffers_equal_those_of_arenas() {
    for gpu in shared_gpus().iter() {
        let groups = ParamGroups::from(Recipe::adamw(1e-2).mgup()).with_accumulation(2);
        let mut arenas = build(gpu, groups.clone());
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        let buffers: Vec<[wgpu::Buffer; 2]> = (0..SHAPES.len()).map(|i| [0, 1].map(|_| own(gpu, i))).collect();
        (0..SHAPES.len()).for_each(|i| fill(gpu, &buffers[i][0], &param(i)));
        for t in 1..=4 {
            (0..SHAPES.len()).for_each(|i| fill(gpu, &buffers[i][1], &grad(i, t)));
            let given = |[param, grad]: &'_ [wgpu::Buffer; 2]| [param.clone(), grad.clone()];
            let own: Vec<_> = buffers.iter().map(given).collect();
            let slices: Vec<_> =
                own.iter().map(|[p, g]| TensorBuffers::new(TensorSlice::whole(p), TensorSlice::whole(g))).collect();
            optimizer.step_with(&slices).unwrap();
            write_grads(&arenas, &all_grads(t));
            arenas.step().unwrap();
        }
        for (i, (name, _)) in SHAPES.iter().enumerate() {
            let found = read(gpu, &buffers[i][0]);
            assert!(found == arenas.read_param_blocking(name).unwrap(), "{}: {name}", gpu.name);
        }
        // Left out of the last micro-batch, a tensor keeps its sum for the next.
        let before = read(gpu, &buffers[1][0]);
        for (t, without) in [(5, None), (6, Some(1)), (7, Some(1)), (8, None)] {
            fill(gpu, &buffers[1][1], &grad(1, t));
            let given = |i: usize| {
                let [p, g] = &buffers[i];
                (Some(i) != without).then(|| TensorBuffers::new(TensorSlice::whole(p), TensorSlice::whole(g)))
            };
            optimizer.step_with(&(0..SHAPES.len()).map(given).collect::<Vec<_>>()).unwrap();
            assert_eq!(read(gpu, &buffers[1][0]) == before, t < 8, "{}: {t}", gpu.name);
        }
        assert_eq!(optimizer.steps("b").unwrap(), 3);
        assert_eq!(optimizer.steps("a").unwrap(), 4);
    }
}

#[test]
fn a_schedule_equals_rates_set_by_hand() {
    for gpu in shared_gpus().iter() {
        let schedules = [
            LrSchedule::cosine(6, 0.1).with_warmup(2),
            LrSchedule::stable(6, 3, 0.0),
            LrSchedule::function(|step| 1.0 / (step + 1) as f64),
        ];
        let recipes = vec![Recipe::adamw(1e-2), Recipe::adamw(1e-2).mgup(), Recipe::lion(1e-2)];
        let specs: Vec<_> = specs().into_iter().enumerate().map(|(i, spec)| spec.in_group(i % 3)).collect();
        let scheduled = (0..3)
            .fold(ParamGroups::from(recipes.clone()), |groups, g| groups.with_group_schedule(g, schedules[g].clone()));
        let make = |groups: ParamGroups| {
            let optimizer = gpu.optimizer(&specs, groups).unwrap();
            SHAPES.iter().enumerate().for_each(|(i, (name, _))| optimizer.write_param(name, &param(i)).unwrap());
            optimizer
        };
        let (mut by_schedule, mut by_hand) = (make(scheduled), make(recipes.into()));
        for t in 1..=6 {
            for (g, schedule) in schedules.iter().enumerate() {
                by_hand.set_group_lr(g, 1e-2 * schedule.factor(t - 1)).unwrap();
                assert_eq!(by_schedule.lr(g).unwrap(), by_hand.lr(g).unwrap());
            }
            for optimizer in [&mut by_schedule, &mut by_hand] {
                write_grads(optimizer, &all_grads(t));
                optimizer.step().unwrap();
            }
        }
        assert!(everything(&by_schedule) == everything(&by_hand), "{}", gpu.name);
    }
}

#[test]
fn bad_settings_are_refused_by_name() {
    let gpu = &gpus()[0];
    let plain = || ParamGroups::from(Recipe::adamw(1e-3));
    let refused = |groups: ParamGroups| gpu.optimizer(&specs(), groups).unwrap_err().to_string();
    for (groups, words) in [
        (plain().with_max_grad_value(0.0), "`max_grad_value` is 0"),
        (plain().with_accumulation(0), "`accumulation` is 0"),
        (plain().with_grad_scaler(GradScaler::default().init(0.0)), "`grad_scaler.init` is 0"),
        (plain().with_grad_scaler(GradScaler::default().interval(0)), "`grad_scaler.interval`"),
        (
            plain().with_grad_scaler(GradScaler::default()).with_non_finite(NonFinite::Propagate),
            "`non_finite` is propagate",
        ),
        (plain().with_schedule(LrSchedule::cosine(0, 0.0)), "`schedule.steps` is 0"),
        (plain().with_telemetry(0), "`telemetry` is 0"),
    ] {
        let message = refused(groups);
        assert!(message.contains(words), "{message}");
    }
    let skips = plain().with_non_finite(NonFinite::Skip);
    let error = GpuOptimizer::stateless_blocking(&gpu.device, &gpu.queue, &specs(), skips).unwrap_err();
    assert!(error.to_string().contains("without state"), "{error}");

    let mut optimizer = build(gpu, plain().with_schedule(LrSchedule::function(|_| f64::NAN)));
    let error = optimizer.step().unwrap_err().to_string();
    assert!(error.contains("schedule's factor"), "{error}");
    assert_eq!(optimizer.recorded_steps(), 0);
    assert!(
        optimizer.read_guarded().err().unwrap().to_string().contains("`max_grad_norm`, `grad_scaler` and `non_finite`")
    );
    assert!(optimizer.set_loss_scale(2.0).unwrap_err().to_string().contains("grad_scaler"));
    assert!(optimizer.set_grad_scale(0.0).is_err());
    assert!(optimizer.lr(1).is_err());
}

/// (dispatches, bytes a parameter, bytes of memory a parameter)
fn cost(groups: ParamGroups) -> (usize, f64, f64) {
    use wgpu_optim::Program;
    use wgpu_optim::matrix::Matmul;
    use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
    let limits = PlanLimits::WEBGPU;
    let specs = [TensorSpec::new("w", [1 << 24]), TensorSpec::new("v", [5 << 20])];
    let plan = Plan::new(&specs, &groups, Ownership::Arenas, limits).unwrap();
    let program = Program::of(&plan, limits.binding, 65_535, Matmul::Tiles);
    let numel = plan.numel() as f64;
    (program.step().count(), program.cost.traffic as f64 / numel, plan.memory() as f64 / numel)
}

#[test]
fn what_is_off_costs_nothing_and_what_is_on_one_pass() {
    for name in ["adamw", "mgup-lion", "cautious-adamw"] {
        let plain = || ParamGroups::from(name.parse::<Recipe>().unwrap());
        let off = cost(plain());
        let free = plain().with_max_grad_value(1.0).with_schedule(LrSchedule::cosine(10, 0.0));
        assert_eq!(cost(free), off);
        let skip = || plain().with_non_finite(NonFinite::Skip);
        for on in [
            skip(),
            plain().with_max_grad_norm(1.0),
            skip().with_max_grad_norm(1.0).with_grad_scaler(GradScaler::default()).with_max_grad_value(1.0),
        ] {
            let on = cost(on);
            assert_eq!(on.0 - off.0, 2, "{name}");
            assert!((4.0..4.01).contains(&(on.1 - off.1)), "{name}: {on:?}, {off:?}");
            assert!(on.2 - off.2 < 0.001, "{name}");
        }
        let observed = cost(plain().with_telemetry(100));
        assert_eq!((observed.0, observed.1), (off.0, off.1));
        assert!((observed.2 - off.2 - 4.0).abs() < 0.01);
        // Reads two bytes less of each gradient, twice under Cautious; and reads masters, and writes two bytes.
        let half = cost(plain().with_precision(Precision::Bf16));
        let more = if name == "cautious-adamw" { 2.0 } else { 4.0 };
        assert!((half.1 - off.1 - more).abs() < 0.05, "{name}: {half:?}, {off:?}");
        assert_eq!(half.2 - off.2, 0.0);
        // θ and g of two bytes each are read, and θ is written; under Cautious, g is read twice.
        let rounded = cost(plain().with_precision(Precision::Bf16).without_masters(Rounding::Nearest));
        let less = if name == "cautious-adamw" { 8.0 } else { 6.0 };
        assert!((off.1 - rounded.1 - less).abs() < 0.15, "{name}: {rounded:?}, {off:?}");
        assert_eq!(off.2 - rounded.2, 4.0, "{name}");
        let averaged = cost(plain().with_average(Average::default()));
        let pages = averaged.0 - off.0;
        assert_eq!((pages, averaged.1 - off.1, averaged.2 - off.2), (1, 12.0, 4.0), "{name}");
        let several = cost(plain().with_accumulation(8));
        assert_eq!((several.0, several.1), (off.0, off.1));
        assert!((several.2 - off.2 - 4.0).abs() < 1e-3);
    }
}
