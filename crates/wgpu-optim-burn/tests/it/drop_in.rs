//! Recipes behind Burn's `Optimizer`.

use burn::module::ParamGroup;
use burn::optim::ModuleOptimizer;
use wgpu_optim::{Recipe, StateFormat, verify};
use wgpu_optim_burn::RecipeOptimizer;

use crate::common::{self, Mlp, autodiff, bits, gpu, gradient, gradients, read, tolerance};

/// Recipes with states in f32, which is what Burn's tensors hold.
fn recipes() -> impl Iterator<Item = (String, Recipe)> {
    common::recipes().into_iter().filter(|(_, recipe)| recipe.state == StateFormat::F32)
}

#[test]
fn every_recipe_follows_the_cpu() {
    for (name, recipe) in recipes() {
        let mut model = Mlp::new(&autodiff());
        let mut twins: Vec<_> = read(&model).into_iter().map(|p| p.twin(recipe.with_lr(1e-2))).collect();
        let mut optim = ModuleOptimizer::from(RecipeOptimizer::new(gpu(), recipe));
        for t in 1..4 {
            // A clone as burn-train keeps one: parameters cannot be changed in place.
            let clone = (t == 2).then(|| (model.clone(), bits(&model)));
            let grads = gradients(&model, t, &[]);
            model = optim.step(1e-2, model, grads);
            if let Some((clone, before)) = clone {
                assert_eq!(bits(&clone), before);
            }
            for (i, twin) in twins.iter_mut().enumerate() {
                twin.step(&gradient(twin.param.len(), i, t));
            }
        }
        for (found, twin) in read(&model).iter().zip(&twins) {
            let (_, failure) = verify::compare_within(tolerance(twin), &found.values, &twin.param, None);
            assert_eq!(failure, None, "{}: {name}, {}", gpu().adapter, found.path);
        }
    }
}

#[test]
fn resuming_equals_going_on_to_the_bit() {
    for (name, recipe) in recipes() {
        let new = || {
            let bias = RecipeOptimizer::new(gpu(), Recipe::lion(1e-3));
            ModuleOptimizer::from(RecipeOptimizer::new(gpu(), recipe)).with_group(
                ParamGroup::from_predicate("bias"),
                bias,
                None,
            )
        };
        let run = |optim: &mut ModuleOptimizer, model, steps: std::ops::Range<u64>| {
            steps.fold(model, |model: Mlp, t| {
                let grads = gradients(&model, t, &[]);
                optim.step(1e-2, model, grads)
            })
        };
        let mut straight = new();
        let model = run(&mut straight, Mlp::new(&autodiff()), 1..4);
        let mut resumed = new().from_bytes(straight.into_bytes().unwrap()).unwrap();
        let expected = bits(&run(&mut straight, model.clone(), 4..7));
        assert_eq!(bits(&run(&mut resumed, model, 4..7)), expected, "{}: {name}", gpu().adapter);
    }
}

#[test]
#[should_panic(expected = "it is F16, but the optimizer steps F32")]
fn what_it_cannot_step_it_refuses_aloud() {
    let mut model = Mlp::new(&autodiff());
    let weight = model.second.weight.val().cast(burn::tensor::FloatDType::F16);
    model.second.weight = burn::module::Param::initialized(model.second.weight.id, weight);
    let grads = gradients(&model, 1, &["first.weight", "first.bias", "second.bias", "scale"]);
    ModuleOptimizer::from(RecipeOptimizer::new(gpu(), Recipe::adamw(1e-3))).step(1e-3, model, grads);
}

#[test]
#[should_panic(expected = "take `GpuModuleOptimizer` for 8-bit states")]
fn eight_bit_states_are_refused_aloud() {
    let model = Mlp::new(&autodiff());
    let grads = gradients(&model, 1, &[]);
    let recipe = Recipe::adamw(1e-3).with_state(StateFormat::EightBit);
    ModuleOptimizer::from(RecipeOptimizer::new(gpu(), recipe)).step(1e-3, model, grads);
}
