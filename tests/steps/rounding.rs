//! Parameters in bf16 without masters: what a step rounds, that the mean of many steps is exact, and that a run can be repeated.

use crate::common::{self, Gpu};
use wgpu_optim::base::{Adafactor, ScheduleFreeSgd, Sgd};
use wgpu_optim::{
    Average, Checkpoint, GpuOptimizer, Miss, NonFinite, ParamGroups, Part, Precision, Recipe, Rounding, Rows,
    StateFormat, TensorBuffers, TensorSlice, TensorSpec, reference, verify, wgpu,
};

const STOCHASTIC: Rounding = Rounding::Stochastic { seed: 5 };
const NUMEL: usize = 20_001;

fn half(recipe: impl Into<Recipe>, rounding: Rounding) -> ParamGroups {
    ParamGroups::from(recipe.into()).with_precision(Precision::Bf16).without_masters(rounding)
}

fn build(gpu: &Gpu, groups: ParamGroups, params: &[f32]) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&[TensorSpec::new("w", [params.len()])], groups).unwrap();
    optimizer.write_param("w", params).unwrap();
    optimizer
}

fn nearest(values: Vec<f32>) -> Vec<f32> {
    Precision::Bf16.decode(&Precision::Bf16.encode(&values), values.len())
}

fn step(optimizer: &mut GpuOptimizer, t: u64) -> Vec<f32> {
    let grad = nearest(verify::grads(NUMEL, t));
    optimizer.write_grad("w", &grad).unwrap();
    optimizer.step().unwrap();
    grad
}

/// Steps whose f32 arithmetic is exact, so that the bits of the rounded parameters are known.
#[test]
fn every_coordinate_is_rounded_as_on_the_cpu() {
    for gpu in common::shared_gpus().iter() {
        for rounding in [Rounding::Nearest, STOCHASTIC] {
            for recipe in [Recipe::from(Sgd::new(0.015625)), Recipe::from(Sgd::new(0.015625)).mgup()] {
                let params = nearest(verify::params(NUMEL));
                let mut optimizer = build(gpu, half(recipe, rounding), &params);
                let spec = TensorSpec::new("w", [NUMEL]);
                let mut twin = reference::Tensor::new(recipe, params).unwrap();
                for t in 1..5 {
                    twin.step(&step(&mut optimizer, t));
                    for (i, param) in twin.param.iter_mut().enumerate() {
                        *param = rounding.round(*param, t as u32, spec.identity(), i as u32);
                    }
                    let found = optimizer.read_param_blocking("w").unwrap();
                    let wrong = found.iter().zip(&twin.param).filter(|(found, param)| found != param).count();
                    assert_eq!(wrong, 0, "{}: {recipe}, {rounding:?}, step {t}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn steps_below_the_distance_of_two_values_add_up_on_average() {
    const STEPS: u32 = 256;
    for gpu in common::shared_gpus().iter() {
        let moved = |rounding: Rounding| {
            let recipe = Sgd::new(1.0 / 4096.0);
            let mut optimizer = build(gpu, half(recipe, rounding), &[1.5; NUMEL]);
            optimizer.write_grad("w", &[-1.0; NUMEL]).unwrap();
            for _ in 0..STEPS {
                optimizer.step().unwrap();
            }
            let found = optimizer.read_param_blocking("w").unwrap();
            found.iter().map(|&x| f64::from(x) - 1.5).sum::<f64>() / NUMEL as f64
        };
        assert_eq!(moved(Rounding::Nearest), 0.0, "{}: they are lost", gpu.name);
        // Values are 1/128 apart there. A step goes up with the chance p = 1/32, so that a coordinate moves by 256 p / 128 with the variance
        // 256 p (1 − p) / 128².
        let deviation = (f64::from(STEPS) / 32.0 * (31.0 / 32.0)).sqrt() / 128.0 / (NUMEL as f64).sqrt();
        let found = moved(STOCHASTIC);
        assert!((found - 1.0 / 16.0).abs() < 5.0 * deviation, "{}: {found}, not 0.0625 ± {deviation}", gpu.name);
    }
}

#[test]
fn a_run_is_repeated_and_resumed_to_the_bit_and_other_seeds_differ() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rounded.safetensors");
    for gpu in common::shared_gpus().iter() {
        let groups = |seed: u32| {
            half(Recipe::adamw(1e-2).mgup(), Rounding::Stochastic { seed })
                .with_non_finite(NonFinite::Skip)
                .with_average(Average::moving(0.9))
        };
        let run = |seed: u32, through: Option<&std::path::Path>| {
            let mut optimizer = build(gpu, groups(seed), &verify::params(NUMEL));
            for t in 1..8 {
                step(&mut optimizer, t);
                if let Some(path) = through.filter(|_| t == 4) {
                    optimizer.evaluate().unwrap();
                    optimizer.save(path).unwrap();
                    optimizer = GpuOptimizer::resume(&gpu.device, &gpu.queue, path).unwrap();
                    optimizer.train().unwrap();
                }
                if t == 2 {
                    // A skipped step changes nothing and does not count.
                    let before = optimizer.read_param_blocking("w").unwrap();
                    optimizer.write_grad("w", &[f32::NAN; NUMEL]).unwrap();
                    optimizer.step().unwrap();
                    assert_eq!(optimizer.read_param_blocking("w").unwrap(), before, "{}", gpu.name);
                }
            }
            [optimizer.read_param_blocking("w").unwrap(), optimizer.read_state_blocking("w", "average").unwrap()]
        };
        let expected = run(1, None);
        assert!(run(1, None) == expected, "{}: repeated", gpu.name);
        assert!(
            run(1, Some(&path)) == expected,
            "{}: resumed, while averages were in the place of parameters",
            gpu.name
        );
        assert!(run(2, None) != expected, "{}: another seed", gpu.name);
    }
}

#[test]
fn averages_take_the_place_of_rounded_parameters_without_loss() {
    for gpu in common::shared_gpus().iter() {
        let groups = half(Recipe::adamw(1e-1), STOCHASTIC).with_average(Average::moving(0.7));
        let mut optimizer = build(gpu, groups, &verify::params(NUMEL));
        (1..6).for_each(|t| drop(step(&mut optimizer, t)));
        let read = |optimizer: &GpuOptimizer| {
            [optimizer.read_param_blocking("w").unwrap(), optimizer.read_state_blocking("w", "average").unwrap()]
        };
        let [params, averages] = read(&optimizer);
        optimizer.evaluate().unwrap();
        // Half of the last bit goes up, ties to even or not.
        for (found, average) in read(&optimizer)[0].iter().zip(&averages) {
            assert!((found - average).abs() <= average.abs() / 256.0, "{}: {found} for {average}", gpu.name);
        }
        optimizer.train().unwrap();
        assert!(read(&optimizer) == [params, averages], "{}", gpu.name);
    }
}

#[test]
fn every_kind_of_recipe_follows_its_masters() {
    let names = ["adamw", "mgup-adamw", "mgup-adamw-approximate", "cautious-lion", "mgup-muon", "namo-d", "lamadam"];
    let specs = [TensorSpec::new("a", [63, 65]), TensorSpec::new("b", [20_002]), TensorSpec::new("c", [7])];
    let adafactor = Recipe::from(Adafactor::new(1e-2));
    let recipes = names.map(|name| name.parse().unwrap()).into_iter().chain([adafactor]);
    let recipes: Vec<Recipe> = recipes.collect();
    for gpu in common::shared_gpus().iter() {
        for recipe in &recipes {
            let recipe = recipe.with_lr(1.0 / 256.0);
            let kept = ParamGroups::from(recipe).with_precision(Precision::Bf16);
            let [mut rounded, mut masters] = [half(recipe, STOCHASTIC), kept].map(|groups| {
                let optimizer = gpu.optimizer(&specs, groups).unwrap();
                for spec in &specs {
                    optimizer.write_param(&spec.name, &nearest(verify::params(spec.numel() as usize))).unwrap();
                }
                optimizer
            });
            // One step from the same state: what differs is the rounding of the step.
            for optimizer in [&mut rounded, &mut masters] {
                for spec in &specs {
                    optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, 1)).unwrap();
                }
                optimizer.step().unwrap();
            }
            for TensorSpec { name, .. } in &specs {
                let [found, exact] = [&rounded, &masters].map(|optimizer| optimizer.read_param_blocking(name).unwrap());
                let is_next =
                    |(found, exact): (&f32, &f32)| (found - exact).abs() <= 1.001 * exact.abs() / 128.0 + 1e-30;
                let right = found.iter().zip(&exact).filter(|&pair| is_next(pair)).count();
                assert_eq!(right, found.len(), "{}: {recipe}, {name}", gpu.name);
                assert!(found != exact || name == "c", "{}: {recipe}, {name}: it is rounded", gpu.name);
            }
        }
    }
}

#[test]
fn a_missed_bracket_selects_k_and_moves_as_far_on_average() {
    for gpu in common::shared_gpus().iter() {
        let run = |miss: Option<Miss>| {
            let recipe = Recipe::from(Sgd::new(1.0 / 256.0)).mgup();
            let mut optimizer = build(gpu, half(recipe, STOCHASTIC), &[1.5; NUMEL]);
            optimizer.write_grad("w", &verify::grads(NUMEL, 1)).unwrap();
            miss.into_iter().for_each(|miss| optimizer.force_miss(miss));
            optimizer.step().unwrap();
            let selected = optimizer.read_selected_blocking("w").unwrap();
            assert_eq!((selected.count, selected.missed), (NUMEL as u64 / 2, miss.is_some()), "{}: {miss:?}", gpu.name);
            optimizer.read_param_blocking("w").unwrap()
        };
        let mean = |values: &[f32]| values.iter().map(|&x| f64::from(x) - 1.5).sum::<f64>() / NUMEL as f64;
        let hit = run(None);
        for miss in [Miss::Above, Miss::Below, Miss::Overflow] {
            let found = run(Some(miss));
            // Steps are at most a few values of 1/128.
            assert!((mean(&found) - mean(&hit)).abs() < 6.0 / 128.0 / (NUMEL as f64).sqrt(), "{}: {miss:?}", gpu.name);
            assert!(found.iter().zip(&hit).all(|(a, b)| (a - b).abs() <= 2.0 / 128.0), "{}: {miss:?}", gpu.name);
        }
    }
}

#[test]
fn settings_that_need_masters_and_rows_of_odd_length_are_refused() {
    let plain = || ParamGroups::from(Recipe::adamw(1e-3));
    for (groups, words) in [
        (plain().without_masters(STOCHASTIC), "`precision` is f32"),
        (plain().with_precision(Precision::F16).without_masters(Rounding::Nearest), "`precision` is f16"),
        (half(ScheduleFreeSgd::new(1.0), STOCHASTIC), "whose averages need masters"),
    ] {
        let message = groups.validate().unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    let gpu = &common::gpus()[0];
    let points = |rows: usize, width: usize| [TensorSpec::new("points", [rows, width])];
    for (width, fits) in [(4, true), (5, false)] {
        let optimizer = gpu.optimizer(&points(3, width), half(Recipe::adamw(1e-3), STOCHASTIC)).unwrap();
        let values: Vec<f32> = (0..3 * width).map(|i| i as f32).collect();
        optimizer.write_param("points", &values).unwrap();
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: 8,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let index = gpu.device.create_buffer(&descriptor);
        gpu.queue.write_buffer(&index, 0, bytemuck::cast_slice(&[2u32, 0]));
        let rows = [("points", Rows::Gather(TensorSlice::whole(&index)))];
        match optimizer.resized_blocking(&points(2, width), &rows) {
            Ok(new) => {
                let expected = [&values[2 * width..], &values[..width]].concat();
                assert_eq!(new.read_param_blocking("points").unwrap(), expected);
                assert!(fits);
            }
            Err(error) => assert!(!fits && error.to_string().contains("even number"), "{error}"),
        }
    }
}

/// bf16 parameters of which the masters keep only the lower halves.
fn split(recipe: Recipe) -> ParamGroups {
    ParamGroups::from(recipe).with_precision(Precision::Bf16).with_split_masters()
}

#[test]
fn split_masters_have_the_bits_of_whole_ones() {
    let names = [
        "adamw",
        "mgup-adamw",
        "mgup-adamw-approximate",
        "cautious-lion",
        "mgup-lion",
        "mgup-muon",
        "mgup-adamw-random",
        "cautious-mgup-adamw",
        "grams-adamw",
    ];
    let specs = [TensorSpec::new("a", [63, 65]), TensorSpec::new("b", [20_002]), TensorSpec::new("c", [7])];
    for gpu in common::shared_gpus().iter() {
        for name in names {
            for format in [StateFormat::F32, StateFormat::EightBit] {
                let recipe = name.parse::<Recipe>().unwrap().with_lr(1e-2).with_state(format);
                let whole = ParamGroups::from(recipe).with_precision(Precision::Bf16);
                let settings = |groups: ParamGroups| {
                    groups.with_average(Average::moving(0.9)).with_non_finite(NonFinite::Skip).with_accumulation(2)
                };
                let mut both = [split(recipe), whole].map(|groups| {
                    let optimizer = gpu.optimizer(&specs, settings(groups)).unwrap();
                    for spec in &specs {
                        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
                    }
                    optimizer
                });
                for t in 1..7 {
                    for optimizer in &mut both {
                        for spec in &specs {
                            let mut grads = verify::grads(spec.numel() as usize, t);
                            grads[3] = if t == 4 { f32::NAN } else { grads[3] };
                            optimizer.write_grad(&spec.name, &grads).unwrap();
                        }
                        let miss = [Miss::Above, Miss::Below, Miss::Overflow][t as usize % 3];
                        if t > 2 {
                            optimizer.force_miss(miss);
                        }
                        optimizer.step().unwrap();
                    }
                }
                let read = |optimizer: &GpuOptimizer, name: &str| {
                    let average = optimizer.read_state_blocking(name, "average").unwrap();
                    let param = optimizer.read_param_blocking(name).unwrap();
                    [param, average].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                };
                for spec in &specs {
                    let [found, expected] = both.each_ref().map(|optimizer| read(optimizer, &spec.name));
                    assert!(found == expected, "{}: {recipe}, {format:?}, {}", gpu.name, spec.name);
                }
                let [split, _] = &mut both;
                let before = read(split, "b");
                split.evaluate().unwrap();
                assert!(read(split, "b") == [before[1].clone(), before[0].clone()], "{}: averages", gpu.name);
                split.train().unwrap();
                assert!(read(split, "b") == before, "{}: and back", gpu.name);
            }
        }
    }
}

#[test]
fn split_masters_are_kept_in_files_and_resized_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("split.safetensors");
    let spec = |rows: usize| [TensorSpec::new("w", [rows, 6])];
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::adamw(1e-2).mgup();
        let numel = 6 * 1001;
        let mut optimizer = gpu.optimizer(&spec(1001), split(recipe)).unwrap();
        optimizer.write_param("w", &verify::params(numel)).unwrap();
        assert_eq!(optimizer.read_param_blocking("w").unwrap(), verify::params(numel), "{}: written", gpu.name);
        let step = |optimizer: &mut GpuOptimizer, t| {
            optimizer.write_grad("w", &verify::grads(numel, t)).unwrap();
            optimizer.step().unwrap();
            optimizer.read_param_blocking("w").unwrap()
        };
        (1..4).for_each(|t| drop(step(&mut optimizer, t)));
        optimizer.save(&path).unwrap();
        let masters = optimizer.read_param_blocking("w").unwrap();
        let mut resumed = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        assert!(resumed.read_param_blocking("w").unwrap() == masters, "{}: resumed", gpu.name);
        assert!(step(&mut resumed, 4) == step(&mut optimizer, 4), "{}: resumed, and a step later", gpu.name);

        // The masters of a file that has them whole.
        let mut whole = gpu.optimizer(&spec(1001), ParamGroups::from(recipe).with_precision(Precision::Bf16)).unwrap();
        whole.load(&path).unwrap();
        assert!(whole.read_param_blocking("w").unwrap() == masters, "{}: of a file with split ones", gpu.name);
        whole.set_steps(0);
        whole.write_state("w", "exp_avg", &vec![0.0; numel]).unwrap();
        whole.write_state("w", "exp_avg_sq", &vec![0.0; numel]).unwrap();
        whole.write_param("w", &verify::params(numel)).unwrap();
        let expected = step(&mut whole, 1);
        whole.save(&path).unwrap();
        resumed.load(&path).unwrap();
        assert!(resumed.read_param_blocking("w").unwrap() == expected, "{}: of a file with whole ones", gpu.name);

        let grown = pollster::block_on(optimizer.resized(&spec(1003), &[])).unwrap();
        let before = optimizer.read_param_blocking("w").unwrap();
        assert!(grown.read_param_blocking("w").unwrap()[..numel] == before, "{}: resized", gpu.name);

        // Parameters as they are in bf16.
        let slice = optimizer.param("w").unwrap();
        let copy = common::read(gpu, slice.buffer);
        let halves = Precision::Bf16.decode(&copy[slice.offset as usize..], numel);
        let is_rounded = |(half, master): (&f32, &f32)| (half - master).abs() <= master.abs() / 256.0;
        assert!(halves.iter().zip(&before).all(is_rounded) && halves != before, "{}", gpu.name);
        optimizer.forget_masters();
        assert!(optimizer.read_param_blocking("w").unwrap() == halves, "{}: forgotten", gpu.name);
    }
}

#[test]
fn split_masters_of_the_callers_parameters_follow_whole_ones() {
    let n = 5_001;
    let specs = [TensorSpec::new("a", [n]), TensorSpec::new("b", [n])];
    for gpu in common::shared_gpus().iter() {
        let run = |groups: ParamGroups| {
            let mut optimizer = gpu.for_buffers(&specs, groups).unwrap();
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            // With a word of nobody's behind each, and another place than in the optimizer.
            let of = wgpu::BufferDescriptor { label: None, size: 24_064, usage, mapped_at_creation: false };
            let [params, grads] = [0, 1].map(|_| gpu.device.create_buffer(&of));
            gpu.queue.write_buffer(&params, 0, &[0xab; 24_064]);
            let offsets = [768, 12_032];
            for offset in offsets {
                gpu.queue.write_buffer(&params, offset, &Precision::Bf16.encode(&verify::params(n)));
            }
            let slice = |buffer, offset| TensorSlice { buffer, offset, size: 2 * n as u64 + 2 };
            let given = offsets.map(|at| Some(TensorBuffers::new(slice(&params, at), slice(&grads, at))));
            for t in 1..5 {
                for offset in offsets {
                    gpu.queue.write_buffer(&grads, offset, &Precision::Bf16.encode(&verify::grads(n, t)));
                }
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                optimizer.record_with(&mut encoder, &given).unwrap();
                gpu.queue.submit([encoder.finish()]);
            }
            common::read(gpu, &params)
        };
        let recipe = Recipe::adamw(1e-2).mgup();
        let [found, expected] = [split(recipe), ParamGroups::from(recipe).with_precision(Precision::Bf16)].map(run);
        // Ties are rounded differently.
        let differ = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert!(differ <= 4, "{}: {differ} bytes", gpu.name);
        assert!(found[768 + 2 * n + 2..12_032].iter().all(|&byte| byte == 0xab), "{}: a word of nobody's", gpu.name);
    }
}

#[test]
fn split_masters_are_refused_where_they_make_no_sense() {
    let refused = |groups: ParamGroups| groups.validate().unwrap_err().to_string();
    let adamw = || ParamGroups::from(Recipe::adamw(1e-3)).with_split_masters();
    assert!(refused(adamw()).contains("bf16 with `split_masters`"));
    let both = adamw().with_precision(Precision::Bf16).without_masters(Rounding::Nearest);
    assert!(refused(both).contains("keeps no masters"));
    assert!(refused(split(ScheduleFreeSgd::new(0.1).into())).contains("averages need masters"));
}

/// Lower halves belong to the masters: parameters that change from outside, or that averages replace, must not be joined with them.
#[test]
fn lower_halves_stay_with_their_masters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lower.safetensors");
    let spec = [TensorSpec::new("w", [4096])];
    let average = Average::moving(0.9).precision(Precision::Bf16);
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::adamw(1e-2);
        let stepped = |groups: ParamGroups| {
            let mut optimizer = gpu.optimizer(&spec, groups).unwrap();
            optimizer.write_param("w", &verify::params(4096)).unwrap();
            for t in 1..4 {
                optimizer.write_grad("w", &verify::grads(4096, t)).unwrap();
                optimizer.step().unwrap();
            }
            optimizer
        };
        let read = |optimizer: &GpuOptimizer| optimizer.read_param_blocking("w").unwrap();

        // A write during evaluation replaces the average, and the masters come back.
        let mut optimizer = stepped(split(recipe).with_average(average));
        let halves = |values: &[f32]| -> Vec<u32> { values.iter().map(|x| x.to_bits() & 0xffff).collect() };
        let before = halves(&read(&optimizer));
        optimizer.evaluate().unwrap();
        optimizer.write_param("w", &[0.3; 4096]).unwrap();
        assert!(read(&optimizer).iter().all(|x| (x - 0.3).abs() < 0.3 / 256.0), "{}: written", gpu.name);
        optimizer.train().unwrap();
        assert!(halves(&read(&optimizer)) == before, "{}: lower halves after a write during evaluation", gpu.name);

        // Files that hold averages in the place of parameters load only where averages are stored alike.
        optimizer.evaluate().unwrap();
        optimizer.save(&path).unwrap();
        let mut other = gpu.optimizer(&spec, split(recipe).with_average(Average::moving(0.9))).unwrap();
        let refused = other.load(&path).unwrap_err().to_string();
        assert!(refused.contains("averages are stored in another way"), "{refused}");

        // A state without lower halves leaves none of what was there before.
        let mut given = gpu.for_buffers(&spec, split(recipe)).unwrap();
        let whole = gpu.for_buffers(&spec, ParamGroups::from(recipe).with_precision(Precision::Bf16)).unwrap();
        whole.save(&path).unwrap();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let of = wgpu::BufferDescriptor { label: None, size: 8192, usage, mapped_at_creation: false };
        let [param, grad] = [0, 1].map(|_| gpu.device.create_buffer(&of));
        let take_step = |optimizer: &mut GpuOptimizer, grads: &[f32]| {
            gpu.queue.write_buffer(&grad, 0, &Precision::Bf16.encode(grads));
            let slices = TensorBuffers::new(TensorSlice::whole(&param), TensorSlice::whole(&grad));
            optimizer.step_with(&[slices]).unwrap();
            Precision::Bf16.decode(&common::read(gpu, &param), 4096)
        };
        let fresh = |optimizer: &mut GpuOptimizer| {
            gpu.queue.write_buffer(&param, 0, &Precision::Bf16.encode(&[1.5; 4096]));
            take_step(optimizer, &[1e-3; 4096])
        };
        let expected = fresh(&mut gpu.for_buffers(&spec, split(recipe)).unwrap());
        take_step(&mut given, &verify::grads(4096, 1));
        given.load_matching(&mut Checkpoint::open(&path).unwrap(), Part::All).unwrap();
        assert!(fresh(&mut given) == expected, "{}: after load_matching", gpu.name);
    }
}
