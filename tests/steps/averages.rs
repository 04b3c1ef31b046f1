//! Schedule-free bases: parameters that become averages for evaluation, and come back.

use crate::common::{self, Gpu};
use wgpu_optim::base::{BaseKind, ScheduleFreeAdamW, ScheduleFreeSgd};
use wgpu_optim::{
    Base, Error, GpuOptimizer, Miss, NonFinite, ParamGroups, Precision, Recipe, TensorBuffers, TensorSlice, TensorSpec,
    reference, verify, wgpu,
};

fn bases() -> [Base; 2] {
    let adamw = ScheduleFreeAdamW::new(1e-2).betas([0.8, 0.95]).r(0.5).weight_decay(0.1);
    [adamw.into(), ScheduleFreeSgd::new(0.5).momentum(0.7).weight_decay(0.1).into()]
}

fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("a", [3, 5]), TensorSpec::new("b", [20_001]), TensorSpec::new("c", [64, 64])]
}

/// An optimizer, and the same on the CPU, after a few steps.
fn trained(gpu: &Gpu, groups: &ParamGroups) -> (GpuOptimizer, Vec<reference::Tensor<f32>>) {
    let recipe = groups.recipes()[0];
    let mut optimizer = gpu.optimizer(&specs(), groups.clone()).unwrap();
    let twin = |spec: &TensorSpec| {
        let params = verify::params(spec.numel() as usize);
        optimizer.write_param(&spec.name, &params).unwrap();
        reference::Tensor::with_shape(recipe, spec, params).unwrap()
    };
    let mut twins: Vec<_> = specs().iter().map(twin).collect();
    for t in 1..4 {
        for (spec, twin) in specs().iter().zip(&mut twins) {
            let grad = verify::grads(spec.numel() as usize, t);
            optimizer.write_grad(&spec.name, &grad).unwrap();
            twin.step(&grad);
        }
        optimizer.step().unwrap();
    }
    (optimizer, twins)
}

fn params(optimizer: &GpuOptimizer) -> Vec<Vec<f32>> {
    specs().iter().map(|spec| optimizer.read_param_blocking(&spec.name).unwrap()).collect()
}

fn assert_close(what: &str, found: &[Vec<f32>], expected: &[Vec<f32>]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(verify::compare(found, expected, None).1, None, "{what}");
    }
}

#[test]
fn parameters_become_averages_and_come_back() {
    for gpu in common::shared_gpus().iter() {
        for base in bases() {
            let what = format!("{}: {:?}", gpu.name, BaseKind::of(&base));
            let (mut optimizer, mut twins) = trained(gpu, &Recipe::from(base).into());
            let before = params(&optimizer);
            for _ in 0..2 {
                optimizer.evaluate().unwrap();
            }
            assert!(optimizer.is_evaluating());
            let averages: Vec<_> = twins.iter().map(reference::Tensor::evaluated).collect();
            assert_close(&what, &params(&optimizer), &averages);
            assert!(verify::compare(&before[1], &averages[1], None).1.is_some(), "{what}: nothing moved");
            // Neither steps nor other settings go together with averages.
            assert!(matches!(optimizer.step(), Err(Error::Evaluating)));
            assert!(matches!(optimizer.set_recipe(0, base), Err(Error::Evaluating)));
            assert_eq!(optimizer.recorded_steps(), 3);
            for _ in 0..2 {
                optimizer.train().unwrap();
            }
            assert_close(&what, &params(&optimizer), &before);
            for (spec, twin) in specs().iter().zip(&mut twins) {
                let grad = verify::grads(spec.numel() as usize, 4);
                optimizer.write_grad(&spec.name, &grad).unwrap();
                twin.step(&grad);
            }
            optimizer.step().unwrap();
            let expected: Vec<_> = twins.iter().map(|twin| twin.param.clone()).collect();
            assert_close(&what, &params(&optimizer), &expected);
        }
    }
}

#[test]
fn weights_of_the_average_stay_in_range() {
    // t^10 leaves f32 after 7,131 steps, and lr^4 at once.
    let extreme = ScheduleFreeSgd::new(1e-15).weight_lr_power(4.0).r(10.0);
    for gpu in common::shared_gpus().iter() {
        let recipe = Recipe::from(extreme);
        let spec = TensorSpec::new("w", [5]);
        let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), recipe).unwrap();
        let mut double = reference::Tensor::new(recipe, vec![0.0f64; 5]).unwrap();
        optimizer.write_grad("w", &[1.0; 5]).unwrap();
        for steps in [0, 100_000, 10_000_000] {
            optimizer.set_steps(steps);
            double.steps = steps;
            for _ in 0..20 {
                optimizer.step().unwrap();
                double.step(&[1.0; 5]);
            }
            let expected: Vec<f32> = double.states.iter().flatten().map(|&x| x as f32).collect();
            let found: Vec<f32> = ["z_offset", "weight_sum", "lr_max"]
                .iter()
                .flat_map(|state| optimizer.read_state_blocking("w", state).unwrap())
                .collect();
            assert_eq!(verify::compare_within((0.0, 1e-4), &found, &expected, None).1, None, "{}: {steps}", gpu.name);
        }
        // Without a rate there is nothing to weigh.
        let still = Recipe::from(ScheduleFreeSgd::new(0.0));
        let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), still).unwrap();
        optimizer.write_param("w", &[1.0; 5]).unwrap();
        optimizer.write_grad("w", &[1.0; 5]).unwrap();
        optimizer.step().unwrap();
        optimizer.evaluate().unwrap();
        assert_eq!(optimizer.read_param_blocking("w").unwrap(), [1.0; 5], "{}", gpu.name);
    }
}

#[test]
fn other_bases_have_no_averages() {
    let gpu = &common::gpus()[0];
    let (mut optimizer, _) = trained(gpu, &Recipe::adamw(1e-2).into());
    let before = params(&optimizer);
    optimizer.evaluate().unwrap();
    assert_eq!(params(&optimizer), before);
    assert!(matches!(optimizer.step(), Err(Error::Evaluating)));
    optimizer.train().unwrap();
    optimizer.step().unwrap();
}

#[test]
fn parameters_in_two_bytes_follow_their_masters_even_after_a_skipped_step() {
    for gpu in common::shared_gpus().iter() {
        for base in bases() {
            let what = format!("{}: {:?}", gpu.name, BaseKind::of(&base));
            let groups = ParamGroups::from(Recipe::from(base)).with_precision(Precision::Bf16);
            let (mut optimizer, _) = trained(gpu, &groups.with_non_finite(NonFinite::Skip));
            optimizer.write_grad("b", &[f32::NAN; 20_001]).unwrap();
            optimizer.step().unwrap();
            let stored = |optimizer: &GpuOptimizer| {
                let slice = optimizer.param("b").unwrap();
                let bytes = common::read(gpu, slice.buffer);
                Precision::Bf16.decode(&bytes[slice.offset as usize..][..slice.size as usize], 20_001)
            };
            for switch in [GpuOptimizer::evaluate, GpuOptimizer::train] {
                let before = optimizer.read_param_blocking("b").unwrap();
                switch(&mut optimizer).unwrap();
                let masters = optimizer.read_param_blocking("b").unwrap();
                let rounded = Precision::Bf16.decode(&Precision::Bf16.encode(&masters), 20_001);
                assert!(stored(&optimizer) == rounded, "{what}");
                assert_ne!(masters, before, "{what}");
            }
        }
    }
}

#[test]
fn a_missed_bracket_moves_offsets_as_well() {
    for gpu in common::shared_gpus().iter() {
        for base in bases() {
            let run = |miss: Option<Miss>| {
                let spec = TensorSpec::new("w", [30_000]);
                let recipe = Recipe::from(base).mgup();
                let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), recipe).unwrap();
                optimizer.write_param("w", &verify::params(30_000)).unwrap();
                for t in 1..4 {
                    optimizer.write_grad("w", &verify::grads(30_000, t)).unwrap();
                    miss.into_iter().for_each(|miss| optimizer.force_miss(miss));
                    optimizer.step().unwrap();
                }
                let selected = optimizer.read_selected_blocking("w").unwrap();
                assert_eq!((selected.count, selected.missed), (15_000, miss.is_some()), "{}: {miss:?}", gpu.name);
                let offsets = optimizer.read_state_blocking("w", "z_offset").unwrap();
                [optimizer.read_param_blocking("w").unwrap(), offsets]
            };
            let expected = run(None);
            for miss in [Miss::Above, Miss::Below, Miss::Overflow, Miss::Boundary] {
                let what = format!("{}: {:?}, {miss:?}", gpu.name, BaseKind::of(&base));
                assert_close(&what, &run(Some(miss)), &expected);
            }
        }
    }
}

#[test]
fn the_callers_parameters_become_averages_too() {
    let [base, _] = bases();
    for gpu in common::shared_gpus().iter() {
        let (mut owner, _) = trained(gpu, &Recipe::from(base).into());
        let specs = specs();
        let mut optimizer =
            GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, Recipe::from(base)).unwrap();
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffers: Vec<_> = specs
            .iter()
            .map(|spec| {
                [(); 2].map(|()| {
                    let size = (4 * spec.numel()).next_multiple_of(16);
                    let descriptor = wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false };
                    gpu.device.create_buffer(&descriptor)
                })
            })
            .collect();
        let given: Vec<_> = buffers
            .iter()
            .map(|[param, grad]| TensorBuffers::new(TensorSlice::whole(param), TensorSlice::whole(grad)))
            .collect();
        for (spec, [param, _]) in specs.iter().zip(&buffers) {
            gpu.queue.write_buffer(param, 0, bytemuck::cast_slice(&verify::params(spec.numel() as usize)));
        }
        for t in 1..4 {
            for (spec, [_, grad]) in specs.iter().zip(&buffers) {
                gpu.queue.write_buffer(grad, 0, bytemuck::cast_slice(&verify::grads(spec.numel() as usize, t)));
            }
            optimizer.step_with(&given).unwrap();
        }
        assert!(matches!(optimizer.evaluate(), Err(Error::Ownership(_))));
        assert!(matches!(owner.evaluate_with(&given), Err(Error::Ownership(_))));
        let found = || -> Vec<Vec<f32>> {
            let read = |buffer: &wgpu::Buffer, count: usize| {
                bytemuck::pod_collect_to_vec::<u8, f32>(&common::read(gpu, buffer)[..4 * count])
            };
            specs.iter().zip(&buffers).map(|(spec, [param, _])| read(param, spec.numel() as usize)).collect()
        };
        owner.evaluate().unwrap();
        optimizer.evaluate_with(&given).unwrap();
        assert!(matches!(optimizer.step_with(&given), Err(Error::Evaluating)));
        assert_eq!(found(), params(&owner), "{}", gpu.name);
        owner.train().unwrap();
        optimizer.train_with(&given).unwrap();
        assert_eq!(found(), params(&owner), "{}", gpu.name);
    }
}
