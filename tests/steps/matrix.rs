//! Muon and AdaGO: what is orthogonalised and how well, what goes to the fallback, and what is refused.

use std::cell::RefCell;

use crate::common::{self, Gpu};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use wgpu_optim::base::{AdaGo, Adafactor, AdamW, Base, Muon, NamoD, NewtonSchulz, NorMuon, NsCoefficients, Scale};
use wgpu_optim::matrix::{Matmul, Matrix};
use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
use wgpu_optim::verify::{self, Case};
use wgpu_optim::{
    Error, GpuOptimizer, LrSchedule, MatrixLayout, Miss, ParamGroups, Precision, Program, Recipe, Requirements,
    TensorBuffers, TensorSlice, TensorSpec, adapter, reference, wgpu,
};

const WEBGPU: PlanLimits = PlanLimits::WEBGPU;

/// A Muon whose step takes the orthogonalised gradient away.
fn bare(ns_steps: u32, ns_coefficients: impl Into<NsCoefficients>) -> Recipe {
    let muon = Muon::new(1.0).momentum(0.0).nesterov(false).scale(Scale::None);
    muon.ns_steps(ns_steps).ns_coefficients(ns_coefficients).into()
}

/// Orthogonalised gradients, as the parameters that started at zero show them.
fn orthogonalized(gpu: &Gpu, groups: impl Into<ParamGroups>, grads: &[(Vec<usize>, Vec<f32>)]) -> Vec<Vec<f32>> {
    let specs: Vec<_> =
        grads.iter().enumerate().map(|(i, (shape, _))| TensorSpec::new(i.to_string(), shape.clone())).collect();
    let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
    for (spec, (_, grad)) in specs.iter().zip(grads) {
        optimizer.write_grad(&spec.name, grad).unwrap();
    }
    optimizer.step().unwrap();
    let read = |spec: &TensorSpec| optimizer.read_param_blocking(&spec.name).unwrap();
    specs.iter().map(|spec| read(spec).into_iter().map(|x| -x).collect()).collect()
}

/// A matrix with singular values between 0.3 and 1, from an orthogonal one.
fn conditioned(rows: usize, cols: usize) -> Vec<f32> {
    let random: Vec<f64> = verify::params(rows * cols).into_iter().map(f64::from).collect();
    let converge = NewtonSchulz { steps: 40, coefficients: [2.0, -1.5, 0.5].into() };
    let matrix = Matrix { rows: rows as u64, cols: cols as u64, inputs_first: false };
    let orthogonal = reference::newton_schulz(&random, matrix, converge);
    // Rows of a wide one, columns of a tall one are orthonormal: scaling them sets the singular values.
    let few = rows.min(cols);
    let scale = |i: usize| 0.3 + 0.7 * i as f64 / few as f64;
    let of = |at: usize| if rows <= cols { at / cols } else { at % cols };
    orthogonal.iter().enumerate().map(|(at, &x)| (x * scale(of(at))) as f32).collect()
}

/// Singular values, ascending: Jacobi's method on X Xᵀ or Xᵀ X.
fn singular_values(x: &[f32], rows: usize, cols: usize) -> Vec<f64> {
    let at = |r: usize, c: usize| f64::from(x[r * cols + c]);
    let m = rows.min(cols);
    let dot = |i: usize, j: usize| -> f64 {
        if rows <= cols {
            (0..cols).map(|k| at(i, k) * at(j, k)).sum()
        } else {
            (0..rows).map(|k| at(k, i) * at(k, j)).sum()
        }
    };
    let mut a: Vec<Vec<f64>> = (0..m).map(|i| (0..m).map(|j| dot(i, j)).collect()).collect();
    for _ in 0..30 {
        for p in 0..m {
            for q in p + 1..m {
                if a[p][q].abs() < 1e-15 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                let rotate = |x: f64, y: f64| (c * x - s * y, s * x + c * y);
                for row in &mut a {
                    (row[p], row[q]) = rotate(row[p], row[q]);
                }
                let (upper, lower) = a.split_at_mut(q);
                for (x, y) in upper[p].iter_mut().zip(&mut lower[0]) {
                    (*x, *y) = rotate(*x, *y);
                }
            }
        }
    }
    let mut values: Vec<f64> = (0..m).map(|i| a[i][i].max(0.0).sqrt()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The ways of multiplying that a device has. `Tiles` is one of the others, depending on the shape.
fn ways(gpu: &Gpu) -> Vec<Matmul> {
    let exact = Matmul::ALL.into_iter().filter(|matmul| ![Matmul::Tiles, Matmul::TilesF16].contains(matmul));
    exact.filter(|matmul| adapter::supports(&gpu.device, *matmul)).collect()
}

/// Matrices of these shapes, all in one optimizer, so that its kernels are compiled once.
fn all_conditioned(shapes: &[[usize; 2]]) -> Vec<(Vec<usize>, Vec<f32>)> {
    shapes.iter().map(|&[rows, cols]| (vec![rows, cols], conditioned(rows, cols))).collect()
}

#[test]
fn convergent_coefficients_find_the_orthogonal_factor() {
    let grads = all_conditioned(&[[48, 80], [100, 37], [64, 64], [3, 5], [130, 300]]);
    for gpu in common::shared_gpus().iter() {
        for matmul in ways(gpu) {
            let groups = ParamGroups::from(bare(20, [2.0, -1.5, 0.5])).with_matmul(matmul);
            for (found, (shape, grad)) in orthogonalized(gpu, groups, &grads).iter().zip(&grads) {
                let wide: Vec<f64> = grad.iter().map(|&g| f64::from(g)).collect();
                let matrix = Matrix { rows: shape[0] as u64, cols: shape[1] as u64, inputs_first: false };
                let ns = NewtonSchulz { steps: 40, coefficients: [2.0, -1.5, 0.5].into() };
                let expected = reference::newton_schulz(&wide, matrix, ns);
                for (i, (&f, e)) in found.iter().zip(expected).enumerate() {
                    let error = (f64::from(f) - e).abs();
                    assert!(error < 1e-5, "{}: {matmul:?} {shape:?} at {i}: {f}, not {e}", gpu.name);
                }
            }
        }
    }
}

#[test]
fn five_quintic_steps_bring_singular_values_near_one() {
    let grads = all_conditioned(&[[48, 80], [80, 48], [33, 33], [300, 130]]);
    for gpu in common::shared_gpus().iter() {
        for matmul in ways(gpu) {
            let groups = ParamGroups::from(bare(5, Muon::default().ns_coefficients)).with_matmul(matmul);
            for (found, (shape, _)) in orthogonalized(gpu, groups, &grads).iter().zip(&grads) {
                let values = singular_values(found, shape[0], shape[1]);
                let (least, most) = (values[0], values[values.len() - 1]);
                assert!(least > 0.65 && most < 1.25, "{}: {matmul:?} {shape:?}: {least}..{most}", gpu.name);
            }
        }
    }
}

/// Distances of singular values from 1 after four or five steps, of matrices whose own are between 0.3 and 1. docs/optimizers.md has these
/// numbers.
#[test]
fn polar_express_brings_singular_values_nearer_to_one() {
    let grads = all_conditioned(&[[48, 80], [80, 48], [64, 256]]);
    for gpu in common::shared_gpus().iter() {
        let settings = [
            (5, NsCoefficients::QUINTIC),
            (5, NsCoefficients::POLAR_EXPRESS),
            (4, NsCoefficients::POLAR_EXPRESS_4),
            (4, NsCoefficients::POLAR_EXPRESS),
        ];
        let found = settings.map(|(steps, coefficients)| orthogonalized(gpu, bare(steps, coefficients), &grads));
        for (i, (shape, _)) in grads.iter().enumerate() {
            let distances = found.each_ref().map(|found| {
                let values = singular_values(&found[i], shape[0], shape[1]);
                values.iter().fold(0.0, |most: f64, value| most.max((value - 1.0).abs()))
            });
            println!("{}: {shape:?}: {distances:.4?}", gpu.name);
            assert!(distances[0] < 0.35 && distances[1] < 0.15, "{distances:?}");
            // Four steps are enough with polynomials for four steps, and not with the first four of more.
            assert!(distances[2] < distances[0] && distances[3] > 0.5, "{distances:?}");
        }
    }
}

#[test]
fn coefficients_of_each_iteration_follow_the_cpu() {
    let list = NsCoefficients::list(&[[3.0, -3.2, 1.2], [2.5, -2.5, 1.0], [2.0, -1.5, 0.5]]).unwrap();
    for gpu in common::shared_gpus().iter() {
        // Square and wide ones take other ways through the products.
        for shape in [[40, 40], [30, 200]] {
            for coefficients in [list, NsCoefficients::POLAR_EXPRESS] {
                let recipe = bare(8, coefficients);
                let case = Case::new("coefficients", recipe, shape, 1);
                let outcome = pollster::block_on(gpu.runner().run(&case, recipe)).unwrap();
                assert_eq!(outcome.failure, None, "{}: {shape:?} {coefficients:?}", gpu.name);
            }
        }
    }
}

#[test]
fn half_precision_is_off_by_what_its_documentation_says() {
    for gpu in common::gpus().iter().filter(|gpu| adapter::supports(&gpu.device, Matmul::TilesF16)) {
        for (rows, cols) in [(48, 80), (130, 65), (256, 256)] {
            let grad = [(vec![rows, cols], conditioned(rows, cols))];
            let quintic = bare(5, Muon::default().ns_coefficients);
            let [exact, half] = [Matmul::LargeTiles, Matmul::TilesF16].map(|matmul| {
                let groups = ParamGroups::from(quintic).with_matmul(matmul);
                orthogonalized(gpu, groups, &grad).remove(0)
            });
            let values = [exact, half].map(|found| singular_values(&found, rows, cols));
            let errors = values[0].iter().zip(&values[1]).map(|(exact, half)| (half / exact - 1.0).abs());
            let error = errors.fold(0.0, f64::max);
            println!("{}: f16 {rows}x{cols}: {error:.1e}", gpu.name);
            assert!(error > 1e-5 && error < 2e-2, "{}: {rows}x{cols}: {error}", gpu.name);
        }
    }
}

#[test]
fn every_way_of_multiplying_follow_the_cpu_on_every_adapter() {
    let mut failures = Vec::new();
    for gpu in common::shared_gpus().iter() {
        let mut runner = gpu.runner();
        for case in verify::cases().into_iter().filter(|case| case.name == "mgup-muon") {
            for matmul in ways(gpu) {
                let groups = ParamGroups::from(case.recipe).with_matmul(matmul);
                let outcome = pollster::block_on(runner.run(&case, groups)).unwrap();
                if let Some(failure) = outcome.failure {
                    failures.push(format!("{}: {matmul:?} at {:?}: {failure}", gpu.name, case.shape));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A model with matrices of two shapes, one of them in both orientations, an embedding, a kernel and biases.
fn model() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("embedding", [50, 24]).with_layout(MatrixLayout::Fallback),
        TensorSpec::new("up", [24, 72]),
        TensorSpec::new("up.bias", [72]),
        TensorSpec::new("down", [72, 24]).with_layout(MatrixLayout::InOut),
        TensorSpec::new("conv", [8, 3, 3, 3]).with_layout(MatrixLayout::Flattened),
        TensorSpec::new("kernel", [4, 3, 3, 3]),
        TensorSpec::new("wide", [70, 130]),
        TensorSpec::new("up.again", [24, 72]),
        TensorSpec::new("tall", [130, 70]),
    ]
}

fn twins(specs: &[TensorSpec], recipe: Recipe) -> Vec<reference::Tensor<f32>> {
    let twin =
        |spec: &TensorSpec| reference::Tensor::with_shape(recipe, spec, verify::params(spec.numel() as usize)).unwrap();
    specs.iter().map(twin).collect()
}

fn assert_follows(what: &str, twin: &reference::Tensor<f32>, found: &[f32]) {
    let matrix = twin.recipe.base.newton_schulz().is_some();
    let tolerance = if matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
    assert_eq!(verify::compare_within(tolerance, found, &twin.param, None).1, None, "{what}");
}

#[test]
fn a_model_is_routed_by_what_its_tensors_are() {
    for gpu in common::shared_gpus().iter() {
        for (name, recipe) in verify::recipes() {
            if recipe.fallback().is_none() || name.ends_with("approximate") {
                continue;
            }
            let specs = model();
            let mut twins = twins(&specs, recipe);
            let routed: Vec<_> = twins.iter().map(|twin| twin.recipe == recipe).collect();
            assert_eq!(routed, [false, true, false, true, true, false, true, true, true], "{name}");
            let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
            for (spec, twin) in specs.iter().zip(&twins) {
                optimizer.write_param(&spec.name, &twin.param).unwrap();
            }
            for t in 1..4 {
                for (spec, twin) in specs.iter().zip(&mut twins) {
                    let grad = verify::grads(spec.numel() as usize, t);
                    optimizer.write_grad(&spec.name, &grad).unwrap();
                    twin.step(&grad);
                }
                optimizer.poison_scratch();
                optimizer.step().unwrap();
            }
            for (spec, twin) in specs.iter().zip(&twins) {
                let found = optimizer.read_param_blocking(&spec.name).unwrap();
                assert_follows(&format!("{}: {name}, {}", gpu.name, spec.name), twin, &found);
            }
        }
    }
}

#[test]
fn long_rows_and_columns_follow_the_cpu() {
    for gpu in common::shared_gpus().iter() {
        let mut runner = gpu.runner();
        for recipe in [Base::from(Adafactor::new(1e-2)), NamoD::new(1e-1).into(), NorMuon::new(1e-1).into()]
            .map(|base| Recipe::from(base).weight_decay(0.5))
        {
            for shape in [[3000, 5], [5, 3000], [1025, 33]] {
                let case = Case::new(recipe.name(), recipe, shape, 2);
                let outcome = pollster::block_on(runner.run(&case, recipe)).unwrap();
                assert_eq!(outcome.failure, None, "{}: {recipe} at {shape:?}", gpu.name);
            }
        }
    }
}

#[test]
fn rows_and_columns_of_two_bytes_are_summed_as_others() {
    let spec = TensorSpec::new("w", [37, 33]);
    let half = |values: Vec<f32>| Precision::Bf16.decode(&Precision::Bf16.encode(&values), 37 * 33);
    for gpu in common::shared_gpus().iter() {
        let run = |precision: Precision| {
            let groups = ParamGroups::from(Recipe::from(Adafactor::new(1e-2))).with_precision(precision);
            let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), groups).unwrap();
            optimizer.write_param("w", &half(verify::params(37 * 33))).unwrap();
            for t in 1..4 {
                optimizer.write_grad("w", &half(verify::grads(37 * 33, t))).unwrap();
                optimizer.step().unwrap();
            }
            ["row_var", "col_var"].map(|state| optimizer.read_state_blocking("w", state).unwrap())
        };
        let [rows, columns] = run(Precision::Bf16);
        assert!(rows.iter().chain(&columns).all(|&moment| moment > 0.0));
        assert_eq!([rows, columns], run(Precision::F32), "{}", gpu.name);
    }
}

#[test]
fn rows_and_columns_without_gradients_stay_beside_huge_ones() {
    for gpu in common::shared_gpus().iter() {
        for huge in [1.0, 1e5, 1e12, 3e19, f32::MAX] {
            let recipe = Recipe::from(Adafactor::new(1e-2).eps(2e-38));
            let spec = TensorSpec::new("w", [7, 9]);
            let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), recipe).unwrap();
            let mut twin = reference::Tensor::with_shape(recipe, &spec, verify::params(63)).unwrap();
            optimizer.write_param("w", &twin.param).unwrap();
            // Only the first row and column.
            let grad: Vec<f32> = (0..63).map(|i| if i < 9 || i % 9 == 0 { huge } else { 0.0 }).collect();
            for t in 0..4 {
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
                twin.step(&grad);
                let found = optimizer.read_param_blocking("w").unwrap();
                let wrong = verify::compare(&found, &twin.param, None).1;
                assert_eq!(wrong, None, "{}: {huge:e}, step {t}", gpu.name);
            }
        }
    }
}

#[test]
fn a_forced_miss_decides_the_same() {
    for gpu in common::shared_gpus().iter() {
        let specs = [TensorSpec::new("a", [70, 130]), TensorSpec::new("b", [130, 70])];
        let recipe: Recipe = "mgup-muon".parse().unwrap();
        let run = |miss: Option<Miss>| {
            let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
            if let Some(miss) = miss {
                optimizer.force_miss(miss);
            }
            for t in 1..3 {
                for spec in &specs {
                    optimizer.write_grad(&spec.name, &verify::grads(9100, t)).unwrap();
                }
                optimizer.step().unwrap();
            }
            let selected = optimizer.read_selected_blocking("b").unwrap();
            assert_eq!((selected.count, selected.missed), (4550, miss.is_some()), "{}: {miss:?}", gpu.name);
            specs.each_ref().map(|spec| optimizer.read_param_blocking(&spec.name).unwrap())
        };
        let expected = run(None);
        for miss in [Miss::Above, Miss::Below, Miss::Overflow, Miss::Boundary] {
            assert_eq!(run(Some(miss)), expected, "{}: {miss:?}", gpu.name);
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for gpu in common::shared_gpus().iter() {
        for name in ["mgup-muon", "cautious-adago"] {
            let run = || {
                let specs = model();
                let recipe: Recipe = name.parse().unwrap();
                let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
                for t in 1..4 {
                    for spec in &specs {
                        let grad = verify::grads(spec.numel() as usize, t);
                        optimizer.write_grad(&spec.name, &grad).unwrap();
                    }
                    optimizer.step().unwrap();
                }
                let bits = |spec: &TensorSpec| -> Vec<u32> {
                    optimizer.read_param_blocking(&spec.name).unwrap().into_iter().map(f32::to_bits).collect()
                };
                specs.iter().map(bits).collect::<Vec<_>>()
            };
            assert_eq!(run(), run(), "{}: {name}", gpu.name);
        }
    }
}

/// Parameters and gradients of a model in one buffer each, at the alignment of bindings.
struct Shared {
    buffers: [wgpu::Buffer; 2],
    offsets: Vec<u64>,
}

impl Shared {
    fn new(gpu: &Gpu, specs: &[TensorSpec]) -> Self {
        let mut end = 0;
        let place = |spec: &TensorSpec| {
            let offset = end;
            end = (end + 4 * spec.numel()).next_multiple_of(256);
            offset
        };
        let offsets = specs.iter().map(place).collect();
        let buffers = [(); 2].map(|()| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: end,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        Self { buffers, offsets }
    }

    fn write(&self, gpu: &Gpu, which: usize, index: usize, values: &[f32]) {
        gpu.queue.write_buffer(&self.buffers[which], self.offsets[index], bytemuck::cast_slice(values));
    }

    fn tensor(&self, index: usize, spec: &TensorSpec) -> TensorBuffers<'_> {
        let slice = |which: usize| TensorSlice {
            buffer: &self.buffers[which],
            offset: self.offsets[index],
            size: 4 * spec.numel(),
        };
        TensorBuffers::new(slice(0), slice(1))
    }

    fn read(&self, gpu: &Gpu, index: usize, spec: &TensorSpec) -> Vec<f32> {
        let size = 4 * spec.numel();
        let staging = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(&self.buffers[0], self.offsets[index], &staging, 0, size);
        gpu.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        bytemuck::pod_collect_to_vec(&staging.slice(..).get_mapped_range().unwrap())
    }
}

#[test]
fn in_the_callers_buffers_a_matrix_without_gradient_is_left_alone() {
    for gpu in common::shared_gpus().iter() {
        for name in ["muon", "mgup-adago"] {
            let specs = model();
            let recipe: Recipe = name.parse().unwrap();
            let mut twins = twins(&specs, recipe.with_lr(1.0));
            let shared = Shared::new(gpu, &specs);
            let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, recipe).unwrap();
            for (i, twin) in twins.iter().enumerate() {
                shared.write(gpu, 0, i, &twin.param);
            }
            for t in 1..5u64 {
                let mut given = Vec::new();
                for (i, (spec, twin)) in specs.iter().zip(&mut twins).enumerate() {
                    // `up` rests in the second step, `down` in all but the first.
                    if (i == 1 && t == 2) || (i == 3 && t > 1) {
                        given.push(None);
                        continue;
                    }
                    let grad = verify::grads(spec.numel() as usize, t);
                    shared.write(gpu, 1, i, &grad);
                    twin.step(&grad);
                    given.push(Some(shared.tensor(i, spec).with_lr(1.0)));
                }
                optimizer.step_with(&given).unwrap();
            }
            assert_eq!(optimizer.steps("up").unwrap(), 3);
            for (i, (spec, twin)) in specs.iter().zip(&twins).enumerate() {
                let found = shared.read(gpu, i, spec);
                assert_follows(&format!("{}: {name}, {}", gpu.name, spec.name), twin, &found);
            }
            if name == "mgup-adago" {
                let found = optimizer.read_state_blocking("up", "accumulator").unwrap();
                assert!((found[0] / twins[1].state("accumulator").unwrap()[0] - 1.0).abs() < 1e-5, "{found:?}");
            }
        }
    }
}

#[test]
fn clipping_comes_before_the_momentum() {
    for gpu in common::shared_gpus().iter() {
        for name in ["cautious-muon", "adago"] {
            let specs = model();
            let recipe: Recipe = name.parse().unwrap();
            let mut twins = twins(&specs, recipe);
            let groups = ParamGroups::from(recipe).with_max_grad_norm(0.5);
            let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
            let grads: Vec<_> = specs.iter().map(|spec| verify::grads(spec.numel() as usize, 1)).collect();
            let norm = reference::grad_norm(grads.iter().map(Vec::as_slice));
            let factor: f32 = reference::clip_factor(norm, 0.5);
            assert!(factor < 0.5);
            for ((spec, twin), grad) in specs.iter().zip(&mut twins).zip(&grads) {
                optimizer.write_param(&spec.name, &twin.param).unwrap();
                optimizer.write_grad(&spec.name, grad).unwrap();
                twin.step(&grad.iter().map(|g| factor * g).collect::<Vec<_>>());
            }
            optimizer.step().unwrap();
            for (spec, twin) in specs.iter().zip(&twins) {
                let found = optimizer.read_param_blocking(&spec.name).unwrap();
                assert_follows(&format!("{}: {name}, {}", gpu.name, spec.name), twin, &found);
            }
        }
    }
}

#[test]
fn nan_stays_in_its_own_matrix_and_zero_stays_zero() {
    for gpu in common::shared_gpus().iter() {
        for matmul in ways(gpu) {
            let shape = vec![20, 33];
            let fine = verify::grads(660, 1);
            let mut poisoned = fine.clone();
            poisoned[100] = f32::NAN;
            let grads = [&fine, &poisoned, &vec![0.0; 660], &fine].map(|grad| (shape.clone(), grad.clone()));
            let groups = ParamGroups::from(bare(5, Muon::default().ns_coefficients)).with_matmul(matmul);
            let found = orthogonalized(gpu, groups, &grads);
            assert!(found[0].iter().all(|x| x.is_finite()) && found[0].iter().any(|x| x.abs() > 0.01));
            assert_eq!(found[0], found[3], "{}: {matmul:?}", gpu.name);
            assert!(found[2].iter().all(|&x| x == 0.0), "{}: {matmul:?}", gpu.name);
        }
    }
}

#[test]
fn a_learning_rate_takes_the_fallbacks_with_it_and_back_from_zero() {
    let gpu = &common::gpus()[0];
    let specs = [TensorSpec::new("w", [4, 4]), TensorSpec::new("b", [4])];
    let recipe = Recipe::from(Muon::new(0.1).fallback(AdamW::new(0.5)));
    let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
    let rates = |optimizer: &GpuOptimizer| {
        let recipe = optimizer.groups().recipes()[0];
        (recipe.lr(), recipe.fallback().unwrap().lr())
    };
    assert_eq!(rates(&optimizer), (0.1, 0.5));
    optimizer.set_lr(0.0).unwrap();
    assert_eq!(rates(&optimizer), (0.0, 0.0));
    optimizer.set_lr(0.2).unwrap();
    assert_eq!(rates(&optimizer), (0.2, 1.0));

    // A rate for one step, after a rate of 0.
    let shared = Shared::new(gpu, &specs);
    let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, recipe).unwrap();
    optimizer.set_lr(0.0).unwrap();
    shared.write(gpu, 1, 1, &[1.0; 4]);
    let given = [0, 1].map(|i| shared.tensor(i, &specs[i]).with_lr(0.1));
    optimizer.step_with(&given).unwrap();
    assert!((shared.read(gpu, 1, &specs[1])[0] + 0.5).abs() < 1e-3, "AdamW's first step is its rate");
}

fn program(specs: &[TensorSpec], name: &str) -> (Plan, Program) {
    let recipe: Recipe = name.parse().unwrap();
    let plan = Plan::new(specs, &recipe.into(), Ownership::Arenas, WEBGPU).unwrap();
    let program = Program::of(&plan, WEBGPU.binding, 65_535, Matmul::Tiles);
    (plan, program)
}

#[test]
fn dispatches_grow_with_the_number_of_shapes_and_not_of_matrices() {
    let of = |count: usize, shape: [usize; 2]| (0..count).map(move |i| TensorSpec::new(format!("{shape:?}{i}"), shape));
    for (name, expected) in [("muon", 21), ("mgup-muon", 26), ("cautious-adago", 23)] {
        let dispatches = |specs: Vec<TensorSpec>| program(&specs, name).1.step().count();
        assert_eq!(dispatches(of(1, [96, 70]).collect()), expected, "{name}");
        // Three products more, for the polynomials of wide shapes.
        assert_eq!(dispatches(of(1, [70, 210]).collect()), expected + 3, "{name}");
        assert_eq!(dispatches(of(24, [96, 70]).chain(of(7, [70, 96])).collect()), expected, "{name}");
        assert_eq!(dispatches(of(24, [96, 70]).chain(of(3, [70, 97])).collect()), 2 * expected, "{name}");
    }
}

#[test]
fn scratch_is_at_most_four_times_the_largest_shape_group() {
    for (shape, count) in [([1024, 1024], 1), ([256, 1024], 24), ([512, 2048], 3), ([1000, 1000], 2)] {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("{i}"), shape)).collect();
        let more: Vec<_> = (0..3).map(|i| TensorSpec::new(format!("small{i}"), [100, 100])).collect();
        let group = 4 * (count * shape[0] * shape[1]) as u64;
        for name in ["muon", "mgup-muon", "cautious-adago"] {
            let (plan, _) = program(&[specs.clone(), more.clone()].concat(), name);
            let scratch = plan.scratch_memory();
            assert!(scratch <= 4 * group, "{name} {count} of {shape:?}: {scratch} for {group}");
        }
    }
}

#[test]
fn a_large_matrix_is_planned_where_bindings_allow_it_and_refused_with_the_number() {
    let specs = [TensorSpec::new("w", [4096, 11008])];
    let recipe: ParamGroups = Recipe::muon(2e-2).into();
    let error = Plan::new(&specs, &recipe, Ownership::Arenas, WEBGPU).unwrap_err().to_string();
    assert!(error.contains("max_storage_buffer_binding_size needed 180617216, available 134217728"), "{error}");
    let large = PlanLimits { binding: 1 << 31, buffer: 1 << 31 };
    let plan = Plan::new(&specs, &recipe, Ownership::Arenas, large).unwrap();
    assert_eq!(plan.pages.len(), 1);
    assert!(plan.scratch_memory() <= 4 * 4 * 4096 * 11008);
    // More matrices than fit into a binding are orthogonalised one page after the other.
    let specs: Vec<_> = (0..70).map(|i| TensorSpec::new(format!("{i}"), [1024, 1024])).collect();
    let plan = Plan::new(&specs, &recipe, Ownership::Arenas, WEBGPU).unwrap();
    assert!(plan.pages.len() > 1 && plan.pages.iter().all(|page| page.tensors.len() <= 32));
    assert!(plan.tensors.iter().all(|tensor| tensor.pages.len() == 1));
}

#[test]
fn what_a_device_needs_is_known_before() {
    let needs = |count: usize, shape: [usize; 2]| {
        let specs: Vec<_> = (0..count).map(|i| TensorSpec::new(format!("{i}"), shape)).collect();
        Requirements::new(&specs, Recipe::muon(2e-2)).unwrap().check(&wgpu::Limits::default())
    };
    for (count, shape) in [(64, [1024, 1024]), (16, [1024, 4096]), (4, [4096, 4096]), (1024, [256, 256])] {
        assert!(needs(count, shape).is_ok(), "{count} of {shape:?}");
    }
    let refused = needs(1, [8192, 8192]).unwrap_err().to_string();
    assert!(refused.contains("max_storage_buffer_binding_size needed 268959744"), "{refused}");
}

#[test]
fn rates_of_their_own_fit_into_a_step_of_the_callers_buffers() {
    let gpu = &common::gpus()[0];
    // Rows far apart: every tensor is a batch and a window of its own.
    let shape = |i: usize| [64 + i % 40, 200];
    let specs: Vec<_> = (0..120).map(|i| TensorSpec::new(format!("{i}"), shape(i))).collect();
    let shared = Shared::new(gpu, &specs);
    for name in ["mgup-adago", "muon"] {
        let recipe: Recipe = name.parse().unwrap();
        let mut optimizer = GpuOptimizer::for_buffers_blocking(&gpu.device, &gpu.queue, &specs, recipe).unwrap();
        let rate = |i: usize| 0.01 + 1e-4 * i as f64;
        let given: Vec<_> = specs.iter().enumerate().map(|(i, spec)| shared.tensor(i, spec).with_lr(rate(i))).collect();
        let mut twin = reference::Tensor::with_shape(recipe.with_lr(rate(117)), &specs[117], verify::params(20_200));
        let twin = twin.as_mut().unwrap();
        shared.write(gpu, 0, 117, &twin.param);
        let grad = verify::grads(20_200, 1);
        shared.write(gpu, 1, 117, &grad);
        twin.step(&grad);
        optimizer.step_with(&given).unwrap();
        assert_follows(name, twin, &shared.read(gpu, 117, &specs[117]));
    }
}

#[test]
fn pages_one_after_the_other_equal_one_page() {
    for gpu in common::gpus_with(wgpu::Limits { max_storage_buffer_binding_size: 1 << 20, ..wgpu::Limits::default() }) {
        // Six of 208 × 300 do not fit into a binding of 1 MiB.
        let shape = vec![208, 300];
        let grads: Vec<_> = (1..7).map(|t| (shape.clone(), verify::grads(62_400, t))).collect();
        let recipe = bare(5, [2.0, -1.5, 0.5]).mgup();
        let plan = {
            let specs: Vec<_> = (0..6).map(|i| TensorSpec::new(format!("{i}"), shape.clone())).collect();
            let limits = PlanLimits { binding: 1 << 20, buffer: 256 << 20 };
            Plan::new(&specs, &recipe.into(), Ownership::Arenas, limits).unwrap()
        };
        assert!(plan.pages.len() > 1);
        let together = orthogonalized(&gpu, recipe, &grads);
        for (grad, found) in grads.iter().zip(together) {
            let alone = orthogonalized(&gpu, recipe, std::slice::from_ref(grad)).remove(0);
            assert_eq!(found, alone, "{}", gpu.name);
        }
    }
}

#[test]
fn adago_forgets_a_gradient_that_is_not_finite() {
    for gpu in common::shared_gpus().iter() {
        for groups in [Recipe::adago(0.1).into(), ParamGroups::from(Recipe::adago(0.1)).with_max_grad_norm(1.0)] {
            let clips = groups.max_grad_norm().is_some();
            let specs = [TensorSpec::new("w", [8, 12])];
            let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
            optimizer.write_grad("w", &[2e19; 96]).unwrap();
            optimizer.step().unwrap();
            let found = optimizer.read_state_blocking("w", "accumulator").unwrap()[0];
            assert_eq!(found, if clips { 0.0 } else { 100.0 }, "{}: clips: {clips}", gpu.name);
        }
    }
}

#[test]
fn adago_moves_nothing_at_a_rate_of_zero() {
    for gpu in common::shared_gpus().iter() {
        let specs = [TensorSpec::new("w", [8, 12]).with_components(12)];
        let start = verify::params(96);
        let ended = LrSchedule::linear(1, 0.0);
        let recipe = Recipe::adago(0.1);
        let decayed = ParamGroups::from(recipe).with_schedule(ended);
        let zero = ParamGroups::from(Recipe::adago(0.0));
        for (what, groups) in
            [("set", recipe.into()), ("schedule", decayed), ("recipe", zero), ("rates", recipe.into())]
        {
            let mut optimizer = gpu.optimizer(&specs, groups).unwrap();
            optimizer.write_param("w", &start).unwrap();
            optimizer.write_grad("w", &verify::grads(96, 1)).unwrap();
            match what {
                "set" => optimizer.set_lr(0.0).unwrap(),
                "schedule" => optimizer.set_recorded_steps(7),
                "rates" => optimizer.write_rates("w", &[0.0; 12]).unwrap(),
                _ => {}
            }
            optimizer.step().unwrap();
            assert_eq!(optimizer.read_param_blocking("w").unwrap(), start, "{}: {what}", gpu.name);
        }
        // At a tenth of the rate the floor is a tenth of it.
        let floor = AdaGo::new(0.1).min_step(0.5);
        let [whole, tenth] = [1.0, 0.1].map(|share| {
            let recipe = Recipe::from(floor);
            let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
            optimizer.set_lr(0.1 * share).unwrap();
            optimizer.write_state("w", "accumulator", &[1e6]).unwrap();
            optimizer.write_grad("w", &verify::grads(96, 1)).unwrap();
            optimizer.step().unwrap();
            optimizer.read_param_blocking("w").unwrap()
        });
        for (whole, tenth) in whole.iter().zip(&tenth) {
            assert!((whole - 10.0 * tenth).abs() <= 1e-5 * whole.abs(), "{}: {whole} {tenth}", gpu.name);
        }
    }
}

#[test]
fn a_direction_whose_square_is_beyond_f32_is_orthogonalized_all_the_same() {
    for gpu in common::shared_gpus().iter() {
        // More than a chunk.
        let specs = [TensorSpec::new("w", [72, 120])];
        let grad = verify::grads(72 * 120, 1);
        let chunk: f64 = grad[..4096].iter().map(|&g| f64::from(g).powi(2)).sum();
        // The share of a gradient in the first direction.
        for (name, share) in [("muon", 0.0975), ("adago", 0.05)] {
            let recipe: Recipe = name.parse().unwrap();
            let mut optimizer = gpu.optimizer(&specs, recipe).unwrap();
            // Times 2⁶⁴ the sum of the first chunk is within the range, and that of both is not.
            let unit = (0.7 * f64::from(f32::MAX) / chunk).sqrt() / 2f64.powi(64) / share;
            let mut run = |power: i32| {
                optimizer = optimizer.sibling_blocking(&specs, recipe).unwrap();
                // Exact: the same significands.
                let scaled = |&g: &f32| (f64::from(g) * unit) as f32 * 2f32.powi(power);
                let grad: Vec<f32> = grad.iter().map(scaled).collect();
                assert!(grad.iter().all(|g| g.is_finite()));
                let mut twin = reference::Tensor::with_shape(recipe, &specs[0], vec![0f32; 72 * 120]).unwrap();
                twin.step(&grad);
                optimizer.write_grad("w", &grad).unwrap();
                optimizer.step().unwrap();
                [optimizer.read_param_blocking("w").unwrap(), twin.param]
            };
            let usual = run(10);
            for power in [63, 64, 65, 70, 100, 120] {
                // Only AdaGO's rate knows the size of a gradient, and only up to its limit.
                for (found, usual) in run(power).iter().zip(&usual) {
                    for (found, usual) in found.iter().zip(usual) {
                        let same = (found - usual).abs() <= 2e-6 + 1e-4 * usual.abs();
                        assert!(same, "{}: {name} times 2^{power}: {found} instead of {usual}", gpu.name);
                    }
                }
            }
        }
    }
}

#[test]
fn adago_takes_no_step_smaller_than_its_least() {
    let mut recipe = Recipe::adago(0.1);
    let Base::Adago(base) = &mut recipe.base else { unreachable!() };
    base.min_step = 0.05;
    let spec = TensorSpec::new("w", [24, 20]);
    for gpu in common::shared_gpus().iter() {
        let specs = std::slice::from_ref(&spec);
        let mut optimizer = gpu.optimizer(specs, recipe).unwrap();
        let mut twin = reference::Tensor::with_shape(recipe, &spec, vec![0.0; 480]).unwrap();
        // The rate of the second step alone would be a millionth of that of the first.
        for factor in [1.0, 1e-6] {
            let grad: Vec<f32> = verify::grads(480, 1).iter().map(|g| factor * g).collect();
            optimizer.write_grad("w", &grad).unwrap();
            let before = twin.param.clone();
            optimizer.step().unwrap();
            twin.step(&grad);
            let moved = twin.param.iter().zip(&before).map(|(after, before)| (after - before).abs());
            assert!(moved.fold(0.0, f32::max) > 5e-3);
            assert_follows(&gpu.name, &twin, &optimizer.read_param_blocking("w").unwrap());
        }
    }
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().expect("it is refused").to_string()
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let gpu = &common::gpus()[0];
    let vectors = [TensorSpec::new("b", [4]), TensorSpec::new("kernel", [4, 3, 3])];
    let refused = message(gpu.optimizer(&vectors, Recipe::muon(1e-2).mgup()));
    assert!(refused.contains("`mgup-muon` is for matrices") && refused.contains("use `mgup-adamw`"), "{refused}");
    if !adapter::supports(&gpu.device, Matmul::Subgroups) {
        let groups = ParamGroups::from(Recipe::muon(1e-2)).with_matmul(Matmul::Subgroups);
        let refused = message(gpu.optimizer(&model(), groups));
        assert!(refused.contains("feature SUBGROUP"), "{refused}");
    }
    for (text, part) in [
        (r#"{"base": {"type": "muon", "ns_steps": 0}}"#, "`base.ns_steps` is 0, but must be 1 to 100"),
        (r#"{"base": {"type": "muon", "momentum": 1}}"#, "`base.momentum` is 1, but must be in [0, 1)"),
        (r#"{"base": {"type": "adago", "clip": 0}}"#, "`base.clip` is 0"),
        (r#"{"base": {"type": "adago", "accumulator_init": 0}}"#, "`base.accumulator_init` is 0"),
        (r#"{"base": {"type": "adago", "min_step": -1}}"#, "`base.min_step` is -1"),
        (r#"{"base": {"type": "muon", "fallback": {"type": "lion"}}}"#, "lion"),
        (r#"{"base": {"type": "muon", "fallback": {"type": "adamw", "eps": -1}}}"#, "`base.fallback.eps` is -1"),
        (r#"{"base": {"type": "muon"}, "policy": {"type": "grams"}}"#, "means nothing after orthogonalization"),
        (r#"{"base": {"type": "adago"}, "policy": {"type": "grams"}}"#, "`policy.type` is grams"),
    ] {
        let refused = message(Recipe::from_json(text));
        assert!(refused.contains(part), "{text}: {refused}");
    }
    assert!(message("grams-muon".parse::<Recipe>()).contains("unknown optimizer `grams-muon`"));
}

#[test]
fn any_shape_follows_the_cpu() {
    let gpu = &common::gpus()[0];
    let ways = ways(gpu);
    let runner = RefCell::new(gpu.runner());
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let shapes = (1usize..90, 1usize..90, 0..ways.len());
    let outcome = TestRunner::new(config).run(&shapes, |(rows, cols, way)| {
        let recipe = Recipe::adago(1.0);
        let case = Case::new("adago", recipe, [rows, cols], 2);
        let groups = ParamGroups::from(recipe).with_matmul(ways[way]);
        let outcome = pollster::block_on(runner.borrow_mut().run(&case, groups)).unwrap();
        prop_assert_eq!(outcome.failure, None);
        Ok(())
    });
    outcome.unwrap();
}
