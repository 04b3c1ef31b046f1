//! Every base × policy × size against the CPU twin, on every adapter.

use crate::common;
use wgpu_optim::base::{AdamW, Base, BaseKind, Lion, Muon, SecondMoment};
use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec, reference, verify};

#[test]
fn every_recipe_at_every_size_follows_the_cpu() {
    let mut failures = Vec::new();
    for gpu in common::shared_gpus().iter() {
        let mut runner = gpu.runner();
        // `wgpu-optim verify` runs all of them.
        let few = common::few::few_recipes();
        let is_one = |case: &verify::Case| few.iter().any(|(name, _)| *name == case.name);
        for case in verify::cases().into_iter().filter(is_one) {
            let outcome = pollster::block_on(runner.run(&case, case.recipe)).unwrap();
            println!(
                "{}: {} at {:?}: error {:.1e}, {} uncertain{}",
                gpu.name,
                case.name,
                case.shape,
                outcome.max_error,
                outcome.uncertain,
                outcome.failure.as_ref().map(|f| format!(": FAILED: {f}")).unwrap_or_default()
            );
            if let Some(failure) = outcome.failure {
                failures.push(format!("{}: {} at {:?}: {failure}", gpu.name, case.name, case.shape));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn cautious_weight_decay_follows_the_cpu() {
    for gpu in common::shared_gpus().iter() {
        let mut runner = gpu.runner();
        let adamw = Recipe::from(AdamW::new(1e-2).weight_decay(2.0).cautious_weight_decay(true));
        let lion = Recipe::from(Lion::new(1e-2).weight_decay(2.0).cautious_weight_decay(true));
        for recipe in [adamw, adamw.mgup(), adamw.cautious(), adamw.grams(), lion, lion.mgup()] {
            let case = verify::Case::new(recipe.name(), recipe, [5001], 3);
            let outcome = pollster::block_on(runner.run(&case, recipe)).unwrap();
            assert_eq!(outcome.failure, None, "{}: {recipe}", gpu.name);
        }

        // A parameter on the side to which the step goes keeps its size; one on the other side decays.
        let specs = [TensorSpec::new("matrix", [64, 64])];
        let muon = Muon::new(1e-3).weight_decay(100.0).cautious_weight_decay(true);
        let mut optimizer = gpu.optimizer(&specs, Recipe::from(muon)).unwrap();
        let (before, grad) = (verify::params(4096), verify::grads(4096, 1));
        optimizer.write_param("matrix", &before).unwrap();
        optimizer.write_grad("matrix", &grad).unwrap();
        optimizer.step().unwrap();
        let after = optimizer.read_param_blocking("matrix").unwrap();
        let plain = Recipe::from(muon.weight_decay(0.0));
        let mut twin = reference::Tensor::with_shape(plain, &specs[0], before.clone()).unwrap();
        twin.step(&grad);
        let mut counts = [0; 2];
        for ((&was, &is), &stepped) in before.iter().zip(&after).zip(&twin.param) {
            let moved = stepped - was;
            // Newton–Schulz rounds.
            if moved.abs() < 1e-5 {
                continue;
            }
            let decays = moved * was < 0.0;
            counts[usize::from(decays)] += 1;
            let expected = stepped - if decays { 0.1 * was } else { 0.0 };
            assert!((is - expected).abs() < 2e-5, "{}: {was} became {is} instead of {expected}", gpu.name);
        }
        assert!(counts.iter().all(|&count| count > 1000), "{counts:?}");
    }
}

#[test]
fn the_comparison_notices_what_differs() {
    let fails = |actual: &[f32], expected: &[f32]| verify::compare(actual, expected, None).1;
    assert_eq!(fails(&[1.0, 2.0], &[1.0, 2.0]), None);
    assert_eq!(fails(&[1.0, 2.0001], &[1.0, 2.0]).unwrap(), "at 1: 2.0001 instead of 2");
    assert!(fails(&[f32::NAN], &[1.0]).is_some() && fails(&[1.0], &[f32::NAN]).is_some());
    assert!(fails(&[0.0], &[f32::INFINITY]).is_some() && fails(&[1.0], &[1.0, 1.0]).is_some());
}

/// A state on the CPU, and how far the GPU may be from it: no state depends on what is selected, and few roundings lie
/// between the two.
fn expected<'a>(twin: &'a reference::Tensor<f32>, state: &str) -> (&'a [f32], (f64, f64)) {
    let mut rows = BaseKind::of(&twin.recipe.base).row().states.iter();
    let row = rows.find(|row| row.name == state).expect(state);
    // Moments cancel.
    let tolerance = if row.squares { verify::state_tolerance(row) } else { (2e-7, 1e-5) };
    (twin.state(state).unwrap(), tolerance)
}

/// What is wrong with the state of a tensor, if something is.
fn compare_states(
    twin: &reference::Tensor<f32>,
    states: impl Iterator<Item = (&'static str, Vec<f32>)>,
) -> Vec<String> {
    states
        .filter_map(|(name, found)| {
            let (expected, tolerance) = expected(twin, name);
            let (_, failure) = verify::compare_within(tolerance, &found, expected, None);
            failure.map(|failure| format!("{name}: {failure}"))
        })
        .collect()
}

fn states(optimizer: &GpuOptimizer, name: &str) -> Vec<(&'static str, Vec<f32>)> {
    let read = |state| (state, optimizer.read_state_blocking(name, state).unwrap());
    optimizer.state_names(name).unwrap().map(read).collect()
}

/// The recipes of the table, and AdamW with a second moment for each row. Few for matrices: these compile slowly on some
/// software adapters, and their policies come after the momentum.
fn recipes() -> Vec<(String, Recipe)> {
    let matrix =
        |name: &str| matches!(name, "muon" | "mgup-adago") || name.contains("namo") || name.contains("normuon");
    let mut recipes = common::few::few_recipes();
    recipes.retain(|(name, recipe)| recipe.base.newton_schulz().is_none() || matrix(name));
    for name in ["adamw", "mgup-adamw"] {
        let mut recipe: Recipe = name.parse().unwrap();
        let Base::Adamw(base) = &mut recipe.base else { unreachable!() };
        base.second_moment = SecondMoment::Row;
        recipes.push((format!("{name} by row"), recipe));
    }
    recipes
}

/// Around the edges of a vector, a chunk and of what one workgroup selects from; the last is a vector for every recipe.
const SHAPES: [&[usize]; 7] = [&[1, 1], &[3, 5], &[64, 64], &[67, 129], &[130, 65], &[7, 3001], &[4099]];

#[test]
fn every_state_of_every_recipe_follows_the_cpu() {
    let specs: Vec<_> = SHAPES.iter().map(|shape| TensorSpec::new(format!("{shape:?}"), *shape)).collect();
    let mut failures = Vec::new();
    for gpu in common::shared_gpus().iter() {
        let mut compared = std::collections::BTreeSet::new();
        let mut last: Option<GpuOptimizer> = None;
        for (recipe_name, recipe) in recipes() {
            let mut optimizer = match &last {
                Some(last) => last.sibling_blocking(&specs, recipe).unwrap(),
                None => gpu.optimizer(&specs, recipe).unwrap(),
            };
            let twin = |spec: &TensorSpec| {
                let params = verify::params(spec.numel() as usize);
                optimizer.write_param(&spec.name, &params).unwrap();
                reference::Tensor::with_shape(recipe, spec, params).unwrap()
            };
            let mut twins: Vec<_> = specs.iter().map(twin).collect();
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
                let states = states(&optimizer, &spec.name);
                compared.extend(states.iter().map(|(name, _)| *name));
                let found = compare_states(twin, states.into_iter());
                let what = format!("{}: {recipe_name} at {}", gpu.name, spec.name);
                failures.extend(found.into_iter().map(|failure| format!("{what}: {failure}")));
            }
            if let Some(before) = last.replace(optimizer) {
                before.destroy();
            }
        }
        assert_eq!(
            compared.into_iter().collect::<Vec<_>>(),
            [
                "accumulator",
                "col_var",
                "exp_avg",
                "exp_avg_diff",
                "exp_avg_sq",
                "grad_avg",
                "input_norm_avg",
                "lr_avg",
                "lr_max",
                "max_exp_avg_sq",
                "mean",
                "momentum_buffer",
                "neg_pre_grad",
                "norm_avg",
                "row_var",
                "second_momentum_buffer",
                "square_avg",
                "sum",
                "variance",
                "weight",
                "weight_sum",
                "z_offset"
            ]
        );
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_comparison_of_states_notices_one_that_is_off_by_a_little() {
    let gpu = &common::gpus()[0];
    let spec = TensorSpec::new("w", [5000]);
    let recipe = Recipe::adamw(1e-2);
    let mut optimizer = gpu.optimizer(std::slice::from_ref(&spec), recipe).unwrap();
    let mut twin = reference::Tensor::with_shape(recipe, &spec, vec![0.0; 5000]).unwrap();
    let grad = verify::grads(5000, 1);
    optimizer.write_grad("w", &grad).unwrap();
    optimizer.step().unwrap();
    twin.step(&grad);
    assert!(compare_states(&twin, states(&optimizer, "w").into_iter()).is_empty());
    for (state, at) in [("exp_avg", 4321), ("exp_avg_sq", 4999)] {
        let mut spoiled = states(&optimizer, "w");
        let values = &mut spoiled.iter_mut().find(|(name, _)| *name == state).unwrap().1;
        values[at] = values[at] * 1.0001 + 1e-6 * values[at].signum();
        let found = compare_states(&twin, spoiled.into_iter());
        assert!(found.len() == 1 && found[0].starts_with(&format!("{state}: at {at}")), "{found:?}");
    }
}
