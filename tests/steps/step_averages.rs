//! Averages of parameters over the steps: what they are, when they change, and how they take the place of the parameters.

use crate::common::{self, Gpu};
use wgpu_optim::base::{ScheduleFreeSgd, Sgd};
use wgpu_optim::{
    Average, Error, GpuOptimizer, NonFinite, ParamGroups, Precision, Recipe, Rounding, TensorBuffers, TensorSlice,
    TensorSpec, verify, wgpu,
};

fn specs() -> [TensorSpec; 3] {
    [TensorSpec::new("a", [3, 5]), TensorSpec::new("b", [20_001]), TensorSpec::new("c", [64, 64])]
}

fn build(gpu: &Gpu, groups: ParamGroups) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer
}

fn step(optimizer: &mut GpuOptimizer, t: u64, broken: bool) {
    for spec in specs() {
        let mut grad = verify::grads(spec.numel() as usize, t);
        grad[1] = if broken { f32::NAN } else { grad[1] };
        optimizer.write_grad(&spec.name, &grad).unwrap();
    }
    optimizer.step().unwrap();
}

fn params(optimizer: &GpuOptimizer) -> Vec<Vec<f32>> {
    specs().iter().map(|spec| optimizer.read_param_blocking(&spec.name).unwrap()).collect()
}

fn averages(optimizer: &GpuOptimizer) -> Vec<Vec<f32>> {
    specs().iter().map(|spec| optimizer.read_state_blocking(&spec.name, "average").unwrap()).collect()
}

/// The average on the CPU: what it becomes after step t of those that were taken, of which it has seen `updates`.
fn follow(average: Average, t: u64, updates: &mut u64, before: &mut Vec<Vec<f32>>, params: &[Vec<f32>]) {
    if !average.is_due(t) {
        return;
    }
    *updates += 1;
    let weight = average.weight(*updates) as f32;
    if *updates == 1 {
        *before = params.to_vec();
    }
    for (before, params) in before.iter_mut().zip(params) {
        before.iter_mut().zip(params).for_each(|(before, param)| *before += weight * (param - *before));
    }
}

#[test]
fn averages_follow_the_parameters_at_the_steps_that_are_due() {
    let kinds = [
        Average::moving(0.8),
        Average::moving(0.9).warmup(false).every(2),
        Average::mean().start(2).every(3),
        Average::moving(0.5).start(20),
    ];
    for gpu in common::shared_gpus().iter() {
        for (name, precision, average) in [
            ("adamw", Precision::F32, kinds[0]),
            ("mgup-muon", Precision::F32, kinds[1]),
            ("mgup-adamw", Precision::Bf16, kinds[2]),
            ("cautious-lion", Precision::F32, kinds[3]),
        ] {
            let groups = ParamGroups::from(name.parse::<Recipe>().unwrap()).with_precision(precision);
            let mut optimizer = build(gpu, groups.with_average(average));
            let (mut updates, mut expected) = (0, vec![]);
            for t in 1..13 {
                step(&mut optimizer, t, false);
                follow(average, t, &mut updates, &mut expected, &params(&optimizer));
                let found = averages(&optimizer);
                for (found, expected) in found.iter().zip(&expected) {
                    let (_, failure) = verify::compare_within((1e-7, 1e-6), found, expected, None);
                    assert_eq!(failure, None, "{}: {name}, {average:?}, step {t}", gpu.name);
                }
                if updates == 0 {
                    assert!(found.iter().flatten().all(|&x| x == 0.0), "{}: nothing began", gpu.name);
                }
            }
            assert_eq!(updates, [12, 6, 3, 0][kinds.iter().position(|kind| *kind == average).unwrap()]);

            // They take the place of the parameters and leave it again, to the bit.
            let (before, means) = (params(&optimizer), averages(&optimizer));
            optimizer.evaluate().unwrap();
            assert!(matches!(optimizer.step(), Err(Error::Evaluating)));
            let (own, other) = if updates > 0 { (&means, &before) } else { (&before, &means) };
            assert_eq!((&params(&optimizer), &averages(&optimizer)), (own, other), "{}: {name}", gpu.name);
            if precision == Precision::Bf16 {
                let slice = optimizer.param("b").unwrap();
                let stored = &common::read(gpu, slice.buffer)[slice.offset as usize..][..2 * 20_001];
                assert!(*stored == precision.encode(&own[1])[..2 * 20_001], "{}: they are rounded", gpu.name);
            }
            optimizer.train().unwrap();
            assert_eq!((params(&optimizer), averages(&optimizer)), (before, means), "{}: {name}", gpu.name);
            step(&mut optimizer, 13, false);
        }
    }
}

#[test]
fn a_skipped_step_changes_no_average_and_does_not_count() {
    let average = Average::mean().start(2).every(2);
    for gpu in common::shared_gpus().iter() {
        let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_non_finite(NonFinite::Skip).with_average(average);
        let mut optimizer = build(gpu, groups);
        let (mut updates, mut expected, mut taken) = (0, vec![], 0);
        for t in 1..12 {
            let broken = [2, 3, 7].contains(&t);
            let before = averages(&optimizer);
            step(&mut optimizer, t, broken);
            if broken {
                assert_eq!(averages(&optimizer), before, "{}: step {t}", gpu.name);
                continue;
            }
            taken += 1;
            follow(average, taken, &mut updates, &mut expected, &params(&optimizer));
            for (found, expected) in averages(&optimizer).iter().zip(&expected) {
                let (_, failure) = verify::compare_within((1e-7, 1e-6), found, expected, None);
                assert_eq!(failure, None, "{}: step {t}", gpu.name);
            }
        }
        assert_eq!((taken, updates), (8, 3));
    }
}

#[test]
fn tensors_of_the_caller_have_averages_of_the_steps_that_they_took() {
    for gpu in common::shared_gpus().iter() {
        let specs = [TensorSpec::new("always", [33]), TensorSpec::new("seldom", [33])];
        let recipe = Recipe::from(Sgd::new(1.0));
        let groups = ParamGroups::from(recipe).with_average(Average::mean());
        let mut optimizer = gpu.for_buffers(&specs, groups).unwrap();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = || {
            let descriptor = wgpu::BufferDescriptor { label: None, size: 4 * 33, usage, mapped_at_creation: false };
            gpu.device.create_buffer(&descriptor)
        };
        let buffers = [(); 2].map(|()| [buffer(), buffer()]);
        for [_, grad] in &buffers {
            gpu.queue.write_buffer(grad, 0, bytemuck::cast_slice(&[-1.0f32; 33]));
        }
        let given = buffers.each_ref().map(|[param, grad]| {
            let [param, grad] = [param, grad].map(|buffer| TensorSlice { size: 4 * 33, ..TensorSlice::whole(buffer) });
            TensorBuffers::new(param, grad)
        });
        // θ = 1, 2, 3, 4, 5 and 1, 2.
        for t in 1..6 {
            optimizer.step_with(&[Some(given[0]), given.get(1).copied().filter(|_| t % 3 == 0 || t == 5)]).unwrap();
        }
        let found = || {
            buffers.each_ref().map(|[param, _]| bytemuck::pod_collect_to_vec::<u8, f32>(&common::read(gpu, param))[32])
        };
        assert_eq!(found(), [5.0, 2.0], "{}", gpu.name);
        optimizer.evaluate_with(&given).unwrap();
        let [always, seldom] = found();
        assert!((always - 3.0).abs() < 1e-5 && (seldom - 1.5).abs() < 1e-5, "{}: {always}, {seldom}", gpu.name);
        optimizer.train_with(&given).unwrap();
        assert_eq!(found(), [5.0, 2.0], "{}", gpu.name);
    }
}

#[test]
fn files_keep_averages_and_other_optimizers_say_why_they_do_not_take_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("averaged.safetensors");
    let gpu = &common::gpus()[0];
    let plain = || ParamGroups::from(Recipe::adamw(1e-2));
    let mean = || plain().with_average(Average::mean().start(1));
    let mut optimizer = build(gpu, mean());
    // Before the first update there is nothing to keep.
    step(&mut optimizer, 1, false);
    optimizer.save(&path).unwrap();
    build(gpu, plain()).load(&path).unwrap();
    (2..5).for_each(|t| step(&mut optimizer, t, false));
    optimizer.evaluate().unwrap();
    optimizer.save(&path).unwrap();

    let mut resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
    assert!(resumed.is_evaluating());
    for optimizer in [&mut optimizer, &mut resumed] {
        optimizer.train().unwrap();
        step(optimizer, 5, false);
    }
    assert_eq!(
        (params(&resumed), averages(&resumed)),
        (params(&optimizer), averages(&optimizer)),
        "the mean counts the updates before the file"
    );

    optimizer.save(&path).unwrap();
    let refused = build(gpu, plain()).load(&path).unwrap_err().to_string();
    assert!(refused.contains("`state.a.average`") && refused.contains("keeps none"), "{refused}");
    // Without averages, a file begins new ones.
    let mut without = build(gpu, plain());
    (1..5).for_each(|t| step(&mut without, t, false));
    without.save(&path).unwrap();
    optimizer.load(&path).unwrap();
    step(&mut optimizer, 6, false);
    assert_eq!(averages(&optimizer), params(&optimizer));
    // A state from elsewhere counts as begun.
    optimizer.write_state("a", "average", &[0.0; 15]).unwrap();
    step(&mut optimizer, 7, false);
    let [average, param] = [averages(&optimizer), params(&optimizer)].map(|all| all[0][0]);
    assert!((average - param / 6.0).abs() < 1e-6 * param.abs(), "{average}, {param}");
}

#[test]
fn averages_out_of_range_are_refused_by_name() {
    let plain = || ParamGroups::from(Recipe::adamw(1e-3));
    for (groups, words) in [
        (plain().with_average(Average::moving(1.0)), "`average.decay` is 1"),
        (plain().with_average(Average::mean().every(0)), "`average.every` is 0"),
        (
            ParamGroups::from(Recipe::from(ScheduleFreeSgd::new(1.0))).with_average(Average::mean()),
            "which has an average of its own",
        ),
    ] {
        let message = groups.validate().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let gpu = &common::gpus()[0];
    let refused = gpu.stateless(&specs(), plain().with_average(Average::mean())).unwrap_err().to_string();
    assert!(refused.contains("keep averages"), "{refused}");
}

#[test]
fn averages_in_bf16_follow_those_in_f32_on_average_and_change_places_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("halves.safetensors");
    for gpu in common::shared_gpus().iter() {
        for rounding in [None, Some(Rounding::Stochastic { seed: 0 })] {
            let groups = |format| {
                let groups = ParamGroups::from(Recipe::adamw(1e-2)).with_precision(Precision::Bf16);
                let groups = rounding.map_or_else(
                    || groups.clone().with_split_masters(),
                    |rounding| groups.clone().without_masters(rounding),
                );
                groups.with_average(Average::moving(0.99).warmup(false).precision(format))
            };
            let mut both = [Precision::F32, Precision::Bf16].map(|format| build(gpu, groups(format)));
            for optimizer in &mut both {
                (1..40).for_each(|t| step(optimizer, t, false));
            }
            let [exact, mut halves] = both;
            assert!(params(&exact) == params(&halves), "{}: averages change no step", gpu.name);
            let [expected, found] = [&exact, &halves].map(|optimizer| averages(optimizer).concat());
            let n = found.len() as f64;
            let mean = |values: &mut dyn Iterator<Item = f32>| values.map(f64::from).sum::<f64>() / n;
            // What is lost on average, against how far averages are from the parameters.
            let lost = mean(&mut found.iter().zip(&expected).map(|(a, b)| (a - b) * b.signum()));
            let size = mean(&mut found.iter().zip(&expected).map(|(a, b)| (a - b).abs()));
            let far = mean(&mut params(&exact).concat().iter().zip(&expected).map(|(a, b)| (a - b).abs()));
            assert!(size > 0.0 && lost.abs() < 5.0 * size / n.sqrt(), "{}: {lost} of {size}", gpu.name);
            assert!(size < 0.1 * far, "{}: {size} of {far}", gpu.name);

            let before = (params(&halves), averages(&halves));
            halves.evaluate().unwrap();
            assert!(params(&halves) == before.1, "{}: {rounding:?}: evaluated", gpu.name);
            halves.save(&path).unwrap();
            halves = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
            assert!(params(&halves) == before.1, "{}: {rounding:?}: resumed", gpu.name);
            halves.train().unwrap();
            assert!((params(&halves), averages(&halves)) == before, "{}: {rounding:?}: and back", gpu.name);
        }
    }
    let refused = |groups: ParamGroups| groups.validate().unwrap_err().to_string();
    let half = Average::mean().precision(Precision::Bf16);
    let whole = ParamGroups::from(Recipe::adamw(1e-2)).with_precision(Precision::Bf16).with_average(half);
    assert!(refused(whole).contains("have no masters or split ones"));
}
