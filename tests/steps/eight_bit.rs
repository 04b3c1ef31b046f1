//! States in one byte: the same bytes as on the CPU, exact selection, moments that follow small changes on average, and everything else that
//! works with states in f32.

use crate::common::{self, Gpu};
use wgpu_optim::base::{AdamW, BaseKind, Lion, Muon, Per, RmsProp, ScheduleFreeAdamW, Sgd};
use wgpu_optim::{
    Average, GpuOptimizer, Miss, NonFinite, ParamGroups, Precision, Recipe, Rounding, Rows, StateFormat, TensorBuffers,
    TensorSlice, TensorSpec, reference, verify, wgpu,
};

const NUMEL: usize = 20_001;

fn in_bytes(recipe: impl Into<Recipe>) -> Recipe {
    recipe.into().with_state(StateFormat::EightBit)
}

fn build(gpu: &Gpu, groups: impl Into<ParamGroups>, params: &[f32]) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&[TensorSpec::new("w", [params.len()])], groups).unwrap();
    optimizer.write_param("w", params).unwrap();
    optimizer
}

fn step(optimizer: &mut GpuOptimizer, grad: &[f32]) {
    optimizer.write_grad("w", grad).unwrap();
    optimizer.step().unwrap();
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// The bits of parameters and states.
fn everything(optimizer: &GpuOptimizer, name: &str) -> Vec<Vec<u32>> {
    let states = optimizer.state_names(name).unwrap().map(|state| optimizer.read_state_blocking(name, state).unwrap());
    let param = optimizer.read_param_blocking(name).unwrap();
    states.chain([param]).map(bits).collect()
}

/// Decays of a half and gradients of 8 bits: products are exact, and every adapter rounds sums alike.
#[test]
fn bytes_equal_the_cpus_where_f32_is_exact() {
    let exact: [Recipe; 4] = [
        AdamW::new(1.0 / 64.0).betas([0.5, 0.5]).into(),
        Lion::new(1.0 / 64.0).betas([0.5, 0.75]).into(),
        Sgd::new(1.0 / 64.0).momentum(0.5).into(),
        RmsProp::new(1.0 / 64.0).alpha(0.5).into(),
    ];
    for gpu in common::shared_gpus().iter() {
        for recipe in exact.into_iter().flat_map(|recipe| [recipe, recipe.mgup()]).map(in_bytes) {
            let params = verify::params(NUMEL);
            let mut optimizer = build(gpu, recipe, &params);
            let spec = TensorSpec::new("w", [NUMEL]);
            let mut twin = reference::Tensor::with_shape(recipe, &spec, params).unwrap();
            for t in 1..6 {
                let grad = verify::grads(NUMEL, t);
                let grad = Precision::Bf16.decode(&Precision::Bf16.encode(&grad), NUMEL);
                step(&mut optimizer, &grad);
                twin.step(&grad);
                for state in optimizer.state_names("w").unwrap() {
                    let found = bits(optimizer.read_state_blocking("w", state).unwrap());
                    let expected = bits(twin.state(state).unwrap().to_vec());
                    let wrong = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
                    assert_eq!(wrong, 0, "{}: {recipe}, {state}, step {t}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn k_are_selected_whether_the_bracket_misses_or_not() {
    for gpu in common::shared_gpus().iter() {
        for recipe in [AdamW::new(1e-2).into(), Lion::new(1e-2).into(), Recipe::from(Muon::new(1e-2))] {
            let recipe = in_bytes(recipe.mgup());
            let specs = [TensorSpec::new("w", [141, 142])];
            let run = |miss: Option<Miss>| {
                let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
                for t in 1..4 {
                    miss.into_iter().for_each(|miss| optimizer.force_miss(miss));
                    step(&mut optimizer, &verify::grads(141 * 142, t));
                    let selected = optimizer.read_selected_blocking("w").unwrap();
                    assert_eq!(selected.count, 141 * 142 / 2, "{}: {recipe}, {miss:?}", gpu.name);
                    assert!(selected.missed || miss.is_none(), "{}: {recipe}, {miss:?}", gpu.name);
                }
                let states = optimizer.read_state_blocking("w", optimizer.state_names("w").unwrap().next().unwrap());
                (bits(states.unwrap()), optimizer.read_param_blocking("w").unwrap())
            };
            let hit = run(None);
            for miss in [Miss::Above, Miss::Below, Miss::Overflow] {
                let found = run(Some(miss));
                assert!(found.0 == hit.0, "{}: {recipe}, {miss:?}: states do not depend on selection", gpu.name);
                // Repaired coordinates have taken their step in two parts.
                let is_near = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
                let near = found.1.iter().zip(&hit.1).filter(|&pair| is_near(pair)).count();
                assert!(
                    near == found.1.len() || recipe.fallback().is_some(),
                    "{}: {recipe}, {miss:?}: {near}",
                    gpu.name
                );
            }
        }
    }
}

/// Brackets of ordinary steps hold as often as with states in f32.
#[test]
fn the_sample_finds_the_rank() {
    for gpu in common::shared_gpus().iter() {
        let mut optimizer = build(gpu, in_bytes(AdamW::new(1e-3)).mgup(), &verify::params(100_003));
        let mut missed = 0;
        for t in 1..21 {
            step(&mut optimizer, &verify::grads(100_003, t));
            missed += u32::from(optimizer.read_selected_blocking("w").unwrap().missed);
        }
        assert_eq!(missed, 0, "{}", gpu.name);
    }
}

#[test]
fn a_run_is_repeated_and_resumed_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bytes.safetensors");
    for gpu in common::shared_gpus().iter() {
        let groups = ParamGroups::from(in_bytes(AdamW::new(1e-2)).mgup())
            .with_non_finite(NonFinite::Skip)
            .with_max_grad_norm(1.0)
            .with_accumulation(2)
            .with_average(Average::moving(0.9))
            .with_precision(Precision::Bf16)
            .without_masters(Rounding::Stochastic { seed: 1 });
        let run = |through: Option<&std::path::Path>| {
            let mut optimizer = build(gpu, groups.clone(), &verify::params(NUMEL));
            for t in 1..12 {
                step(&mut optimizer, &verify::grads(NUMEL, t));
                if let Some(path) = through.filter(|_| t == 5) {
                    optimizer.save(path).unwrap();
                    optimizer = GpuOptimizer::resume(&gpu.device, &gpu.queue, path).unwrap();
                }
                if t == 6 {
                    // A skipped step changes nothing and does not count.
                    let before = everything(&optimizer, "w");
                    (0..2).for_each(|_| step(&mut optimizer, &[f32::NAN; NUMEL]));
                    assert!(everything(&optimizer, "w") == before, "{}", gpu.name);
                }
            }
            everything(&optimizer, "w")
        };
        let expected = run(None);
        assert!(run(None) == expected, "{}: repeated", gpu.name);
        assert!(run(Some(&path)) == expected, "{}: resumed", gpu.name);
    }
}

#[test]
fn checkpoints_of_both_formats_load_into_both() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["f32", "8bit"].map(|name| dir.path().join(name));
    for gpu in common::shared_gpus().iter() {
        for recipe in [Recipe::adamw(1e-2), Recipe::lion(1e-2), Recipe::from(Muon::new(1e-2))] {
            let specs = [TensorSpec::new("w", [123, 5]), TensorSpec::new("b", [7])];
            let make = |format| gpu.optimizer(&specs, recipe.with_state(format)).unwrap();
            let [mut exact, mut bytes] = [make(StateFormat::F32), make(StateFormat::EightBit)];
            for optimizer in [&mut exact, &mut bytes] {
                for t in 1..4 {
                    optimizer.write_grad("b", &verify::grads(7, t)).unwrap();
                    step(optimizer, &verify::grads(615, t));
                }
            }
            exact.save(&paths[0]).unwrap();
            bytes.save(&paths[1]).unwrap();
            let size = |path| std::fs::metadata(path).unwrap().len();
            assert!(size(&paths[1]) < size(&paths[0]), "{}: {recipe}", gpu.name);

            // Bytes become the f32 that they hold, and these the same bytes again.
            exact.load(&paths[1]).unwrap();
            for name in ["w", "b"] {
                assert!(everything(&exact, name) == everything(&bytes, name), "{}: {recipe}", gpu.name);
            }
            let held = everything(&bytes, "w");
            exact.save(&paths[0]).unwrap();
            let mut again = make(StateFormat::EightBit);
            again.load(&paths[0]).unwrap();
            assert!(everything(&again, "w") == held, "{}: {recipe}", gpu.name);

            // Words of a tensor of another shape are refused, although their number is the same.
            let other = [TensorSpec::new("w", [5, 123]), TensorSpec::new("b", [7])];
            let mut other = gpu.for_buffers(&other, in_bytes(recipe)).unwrap();
            let mut own = gpu.for_buffers(&specs, in_bytes(recipe)).unwrap();
            own.save(&paths[1]).unwrap();
            own.load(&paths[1]).unwrap();
            let refused = other.load(&paths[1]).unwrap_err().to_string();
            assert!(refused.contains("of another shape than [5, 123]"), "{refused}");

            // f32 becomes the nearest bytes.
            let mut exact = make(StateFormat::F32);
            let state = exact.state_names("w").unwrap().next().unwrap();
            exact.write_state("w", state, &[1.0; 615]).unwrap();
            step(&mut exact, &[0.01; 615]);
            exact.save(&paths[0]).unwrap();
            again.load(&paths[0]).unwrap();
            let [found, given] = [&again, &exact].map(|optimizer| optimizer.read_state_blocking("w", state).unwrap());
            assert!(given[0] != found[0], "{}: {recipe}: it is rounded", gpu.name);
            let is_near = |(found, given): (&f32, &f32)| (found - given).abs() <= 0.125 * given.abs();
            assert!(found.iter().zip(&given).all(is_near), "{}: {recipe}", gpu.name);
        }
    }
}

/// The mean of v follows β2, although a step changes it by a hundredth of the distance of two of its numbers. No v becomes 0.
#[test]
fn the_second_moment_decays_at_its_rate_after_gradients_stop() {
    const N: usize = 4096;
    let steps = 2000;
    for gpu in common::shared_gpus().iter() {
        let mut optimizer = build(gpu, in_bytes(AdamW::new(0.0).betas([0.9, 0.999])), &[0.0; N]);
        optimizer.write_grad("w", &verify::grads(N, 1).iter().map(|g| 10.0 * g).collect::<Vec<_>>()).unwrap();
        optimizer.step().unwrap();
        let read = |optimizer: &GpuOptimizer, state| optimizer.read_state_blocking("w", state).unwrap();
        let sum = |values: &[f32]| values.iter().map(|&x| f64::from(x)).sum::<f64>();
        let before = read(&optimizer, "exp_avg_sq");
        optimizer.write_grad("w", &[0.0; N]).unwrap();
        for _ in 0..steps {
            optimizer.step().unwrap();
        }
        let after = read(&optimizer, "exp_avg_sq");
        let share = sum(&after) / sum(&before) / 0.999f64.powi(steps);
        assert!((share - 1.0).abs() < 0.05, "{}: {share} of what β2 leaves", gpu.name);
        assert!(
            before.iter().zip(&after).all(|(b, a)| (*b == 0.0) == (*a == 0.0)),
            "{}: 0 stays 0, and only 0",
            gpu.name
        );
        let momenta = read(&optimizer, "exp_avg");
        assert!(
            momenta.iter().all(|m| m.abs() < 1e-20),
            "{}: a momentum that stays moves the parameter for ever",
            gpu.name
        );
    }
}

/// Gradients of coordinates that are seldom touched, beside others that are touched in every step.
#[test]
fn ten_thousand_sparse_steps_neither_drift_nor_collapse() {
    const N: usize = 512;
    let every = |i: usize| [1, 4, 64, 1024][i / 4 % 4];
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::from(AdamW::new(1e-4).betas([0.9, 0.999]));
        let mut optimizer = build(gpu, in_bytes(recipe), &[0.0; N]);
        let mut twin = reference::Tensor::new(recipe, vec![0.0f32; N]).unwrap();
        let (mut exact_v, mut bytes_v, mut least) = (vec![0.0; N], vec![0.0; N], vec![f32::INFINITY; N]);
        for t in 1..=10_000u64 {
            let noise = verify::grads(N, t);
            let touched = |i: usize| t % every(i) == 0 || (i % 4 == 3 && t % (64 * every(i)) == 0);
            let grad: Vec<f32> = (0..N).map(|i| if touched(i) { 0.1 + noise[i] } else { 0.0 }).collect();
            step(&mut optimizer, &grad);
            twin.step(&grad);
            if t > 5_000 && t % 250 == 0 {
                let v = optimizer.read_state_blocking("w", "exp_avg_sq").unwrap();
                for i in 0..N {
                    exact_v[i] += f64::from(twin.states[1][i]);
                    bytes_v[i] += f64::from(v[i]);
                    least[i] = least[i].min(v[i]);
                }
            }
        }
        let (exact, bytes) = (twin.param, optimizer.read_param_blocking("w").unwrap());
        assert!(least.iter().all(|&v| v > 0.0), "{}: a second moment is 0", gpu.name);
        for group in 0..4 {
            let of = |all: &[f64]| (0..N).filter(|i| i / 4 % 4 == group).map(|i| all[i]).sum::<f64>();
            let moved = |all: &[f32]| of(&all.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
            let (v, theta) = (of(&bytes_v) / of(&exact_v), moved(&bytes) / moved(&exact));
            assert!((v - 1.0).abs() < 0.1, "{}: group {group}: v is {v} of that in f32", gpu.name);
            assert!((theta - 1.0).abs() < 0.1, "{}: group {group}: θ moved {theta} of the way", gpu.name);
        }
    }
}

#[test]
fn groups_differ_and_buffers_may_be_the_callers() {
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::adamw(1e-2).mgup();
        let specs =
            [TensorSpec::new("a", [5001]), TensorSpec::new("b", [66, 70]).in_group(1), TensorSpec::new("c", [9])];
        let groups = ParamGroups::from([in_bytes(recipe), recipe]);
        let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
        let alone = |format, spec: &TensorSpec| {
            let spec = TensorSpec::new(&spec.name, spec.shape.clone());
            let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), recipe.with_state(format)).unwrap();
            for t in 1..4 {
                optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
                optimizer.step().unwrap();
            }
            everything(&optimizer, &spec.name)
        };
        for t in 1..4 {
            for spec in &specs {
                optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
            }
            optimizer.step().unwrap();
        }
        assert!(everything(&optimizer, "b") == alone(StateFormat::F32, &specs[1]), "{}: f32", gpu.name);
        for spec in [&specs[0], &specs[2]] {
            let found = everything(&optimizer, &spec.name);
            assert!(found == alone(StateFormat::EightBit, spec), "{}: {}", gpu.name, spec.name);
        }

        // The caller's buffers and states.
        let spec = [TensorSpec::new("a", [5001])];
        let recipe = in_bytes(recipe);
        let buffer = |size: u64| {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            let of = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
            gpu.device.create_buffer(&of)
        };
        let [param, grad] = [20_004, 20_004].map(buffer);
        let states = [5004, 5004].map(buffer);
        let states = states.each_ref().map(TensorSlice::whole);
        let mut own = gpu.stateless(&spec, recipe).unwrap();
        for t in 1..4 {
            gpu.queue.write_buffer(&grad, 0, bytemuck::cast_slice(&verify::grads(5001, t)));
            let given = TensorBuffers::new(TensorSlice::whole(&param), TensorSlice::whole(&grad)).with_state(&states);
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            own.record_with(&mut encoder, &[Some(given)]).unwrap();
            gpu.queue.submit([encoder.finish()]);
        }
        let found: Vec<f32> = bytemuck::pod_collect_to_vec(&common::read(gpu, &param));
        assert!(bits(found) == *alone(StateFormat::EightBit, &specs[0]).last().unwrap(), "{}: the caller's", gpu.name);
    }
}

#[test]
fn rows_of_four_are_resized_and_others_refused() {
    for gpu in common::shared_gpus().iter() {
        let spec = |rows: usize, len: usize| [TensorSpec::new("w", [rows, len])];
        let mut optimizer = gpu.optimizer(&spec(50, 12), in_bytes(Recipe::adamw(1e-2))).unwrap();
        (1..4).for_each(|t| step(&mut optimizer, &verify::grads(600, t)));
        let before = optimizer.read_state_blocking("w", "exp_avg_sq").unwrap();
        let index: Vec<u32> = (0..70).map(|r| if r < 60 { (7 * r) % 50 } else { Rows::NONE }).collect();
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * 70,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&index));
        let rows = Rows::Gather(TensorSlice::whole(&buffer));
        let resized = pollster::block_on(optimizer.resized(&spec(70, 12), &[("w", rows)])).unwrap();
        let after = resized.read_state_blocking("w", "exp_avg_sq").unwrap();
        for (row, &from) in after.chunks(12).zip(&index) {
            let expected =
                if from == Rows::NONE { [0.0; 12].to_vec() } else { before[12 * from as usize..][..12].to_vec() };
            assert_eq!(row, expected, "{}", gpu.name);
        }
        let odd = gpu.optimizer(&spec(50, 6), in_bytes(Recipe::adamw(1e-2))).unwrap();
        let refused = pollster::block_on(odd.resized(&spec(60, 6), &[])).unwrap_err().to_string();
        assert!(refused.contains("multiple of 4"), "{refused}");
    }
}

#[test]
fn bases_whose_state_must_be_exact_are_refused_with_the_reason() {
    let refused = |recipe: Recipe| in_bytes(recipe).validate().unwrap_err().to_string();
    let centered = RmsProp::new(1e-3).centered(true);
    for (recipe, reason) in [
        (Recipe::from(ScheduleFreeAdamW::new(1e-3)), "must be exact"),
        (centered.into(), "difference"),
        (AdamW::new(1e-3).amsgrad(true).into(), "never falls"),
        (Sgd::new(1e-3).into(), "no state per coordinate"),
        ("adafactor".parse().unwrap(), "no state per coordinate"),
        ("adan".parse().unwrap(), "difference of two gradients"),
        ("adamomentum".parse().unwrap(), "error of its rounding"),
        (Muon::new(1e-3).fallback(AdamW::new(1e-3).amsgrad(true)).into(), "base.fallback"),
    ] {
        let text = refused(recipe);
        assert!(text.contains(reason), "{recipe}: {text}");
    }
    let kinds = verify::recipes().into_iter().filter(|(_, recipe)| recipe.state == StateFormat::EightBit);
    let names: Vec<_> = kinds.map(|(_, recipe)| BaseKind::of(&recipe.base).row().name).collect();
    assert_eq!(names.len(), 12, "{names:?}");
    let has_coordinates =
        |recipe: &Recipe| BaseKind::of(&recipe.base).row().states.iter().any(|s| s.per == Per::Coordinate);
    assert!(verify::recipes().iter().all(|(_, recipe)| has_coordinates(recipe) || recipe.state == StateFormat::F32));
}
