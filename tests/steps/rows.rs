//! A second moment for each row: what splatting calls one per point.

use crate::common::{Gpu, shared_gpus};
use wgpu_optim::plan::layout::{Ownership, Plan, PlanLimits};
use wgpu_optim::{GpuOptimizer, NonFinite, ParamGroups, Recipe, Rows, TensorSpec, reference, verify};

/// Short rows and long ones, that cross chunks; vectors, whose rows are coordinates; scalars.
fn specs() -> Vec<TensorSpec> {
    let shapes: [(&str, &[usize]); 8] = [
        ("splats", &[6000, 14]),
        ("points", &[333, 3]),
        ("wide", &[7, 10_001]),
        ("middle", &[100, 128]),
        ("deep", &[50, 6, 25]),
        ("vector", &[5003]),
        ("one row", &[1, 4097]),
        ("scalar", &[]),
    ];
    shapes.map(|(name, shape)| TensorSpec::new(name, shape)).into()
}

fn refused(plan: Result<Plan, wgpu_optim::Error>) -> String {
    plan.expect_err("it is refused").to_string()
}

fn recipe(name: &str) -> Recipe {
    let recipe: Recipe = name.parse().unwrap();
    let json = recipe.to_json().replacen("\"lr\": 0.001", "\"second_moment\": \"row\",\n    \"lr\": 0.01", 1);
    let found = Recipe::from_json(&json).unwrap();
    assert_eq!(Recipe::from_json(&found.to_json()).unwrap(), found);
    found
}

fn grads(i: usize, t: u64) -> Vec<f32> {
    verify::grads(specs()[i].numel() as usize, t + 100 * i as u64)
}

fn build(gpu: &Gpu, groups: impl Into<ParamGroups>) -> GpuOptimizer {
    let optimizer = gpu.optimizer(&specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer
}

fn run(optimizer: &mut GpuOptimizer, range: std::ops::Range<u64>) {
    for t in range {
        for (i, spec) in specs().iter().enumerate() {
            optimizer.write_grad(&spec.name, &grads(i, t)).unwrap();
        }
        optimizer.step().unwrap();
    }
}

#[test]
fn every_policy_follows_the_cpu() {
    for gpu in shared_gpus().iter() {
        for name in [
            "adamw",
            "adamw-torch",
            "cautious-adamw",
            "mgup-adamw",
            "mgup-adamw-approximate",
            "cautious-mgup-adamw",
            "grams-adamw",
        ] {
            let recipe = recipe(name);
            for max_norm in [None, Some(0.5)] {
                let groups = ParamGroups::from(recipe);
                let groups = max_norm.map_or(groups.clone(), |norm| groups.with_max_grad_norm(norm));
                let mut optimizer = build(gpu, groups);
                let twin = |spec: &TensorSpec| {
                    let params = verify::params(spec.numel() as usize);
                    reference::Tensor::with_shape(recipe, spec, params).unwrap()
                };
                let mut twins: Vec<_> = specs().iter().map(twin).collect();
                for t in 1..4 {
                    run(&mut optimizer, t..t + 1);
                    let factor = max_norm.map_or(1.0, |max_norm| {
                        reference::clip_factor(optimizer.read_grad_norm_blocking().unwrap(), max_norm)
                    });
                    for (i, twin) in twins.iter_mut().enumerate() {
                        twin.step(&grads(i, t).iter().map(|g| factor * g).collect::<Vec<_>>());
                    }
                }
                for (spec, twin) in specs().iter().zip(&twins) {
                    let what = format!("{}: {name}, {max_norm:?}, {}", gpu.name, spec.name);
                    let moments = optimizer.read_state_blocking(&spec.name, "exp_avg_sq").unwrap();
                    assert_eq!(moments.len(), spec.shape.first().copied().unwrap_or(1), "{what}");
                    let (_, failure) =
                        verify::compare_within((1e-9, 1e-5), &moments, twin.state("exp_avg_sq").unwrap(), None);
                    assert_eq!(failure, None, "{what}: moments");
                    let found = optimizer.read_param_blocking(&spec.name).unwrap();
                    let wrong = found.iter().zip(&twin.param).filter(|(found, expected)| {
                        (f64::from(**found) - f64::from(**expected)).abs()
                            > verify::TOLERANCE.0 + verify::TOLERANCE.1 * f64::from(expected.abs())
                    });
                    // Rounding may decide between two scores.
                    let most = if name.starts_with("mgup") { 2 + found.len() / 20_000 } else { 0 };
                    let wrong = wrong.count();
                    assert!(wrong <= most, "{what}: {wrong} differ");
                }
            }
        }
    }
}

#[test]
fn a_skipped_step_moves_no_row() {
    for gpu in shared_gpus().iter() {
        let groups = ParamGroups::from(recipe("adamw")).with_non_finite(NonFinite::Skip);
        let mut optimizer = build(gpu, groups);
        run(&mut optimizer, 1..2);
        let read = |optimizer: &GpuOptimizer| -> Vec<Vec<f32>> {
            let specs = specs().into_iter();
            specs.map(|spec| optimizer.read_state_blocking(&spec.name, "exp_avg_sq").unwrap()).collect()
        };
        let before = read(&optimizer);
        optimizer.write_grad("scalar", &[f32::NAN]).unwrap();
        optimizer.step().unwrap();
        assert!(optimizer.read_guarded_blocking().unwrap().skipped);
        assert!(read(&optimizer) == before, "{}", gpu.name);
    }
}

#[test]
fn it_goes_through_files_and_other_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    for gpu in shared_gpus().iter() {
        let mut optimizer = build(gpu, recipe("mgup-adamw"));
        run(&mut optimizer, 1..4);
        optimizer.save(&path).unwrap();
        let mut again = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
        run(&mut optimizer, 4..6);
        run(&mut again, 4..6);
        for spec in specs() {
            let [a, b] = [&optimizer, &again].map(|o| o.read_param_blocking(&spec.name).unwrap());
            assert!(a == b, "{}: {}", gpu.name, spec.name);
        }
        let mut larger = specs();
        larger[0].shape[0] = 7000;
        let grown = again.resized_blocking(&larger, &[("splats", Rows::Keep)]).unwrap();
        let [before, after] = [&again, &grown].map(|o| o.read_state_blocking("splats", "exp_avg_sq").unwrap());
        assert!(after[..6000] == before && after[6000..].iter().all(|&v| v == 0.0));
    }
}

#[test]
fn it_saves_memory_and_refuses_what_does_not_fit() {
    let limits = PlanLimits { binding: 64 << 20, buffer: 256 << 20 };
    let specs = [TensorSpec::new("splats", [1 << 20, 14])];
    let plan = |specs: &[TensorSpec], recipe: Recipe, ownership| Plan::new(specs, &recipe.into(), ownership, limits);
    let per_coordinate = plan(&specs, Recipe::adamw(1e-3), Ownership::Arenas).unwrap().memory();
    let per_row = plan(&specs, recipe("adamw"), Ownership::Arenas).unwrap().memory();
    let saved = (per_coordinate - per_row) as f64 / (14 << 20) as f64;
    assert!((saved - 4.0 * 13.0 / 14.0).abs() < 0.01, "{saved}");
    let error = refused(plan(&[TensorSpec::new("w", [17 << 20])], recipe("adamw"), Ownership::Arenas));
    assert!(error.contains("max_storage_buffer_binding_size"), "{error}");
}
