//! What a step does to a module.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use wgpu_optim::base::{AdamW, Lion, ScheduleFreeAdamW};
use wgpu_optim::{Average, Base, ParamGroups, Recipe, reference, verify};
use wgpu_optim_burn::{GpuModuleOptimizer, Select};

use crate::common::{
    Mlp, Transformer, Values, autodiff, bits, gpu, gradient, gradients, peers, read, recipes, tolerance,
};

/// Fails unless every parameter follows its twin.
fn assert_follows(model: &Mlp, twins: &[reference::Tensor<f32>], what: &str) {
    for (found, twin) in read(model).iter().zip(twins) {
        let (_, failure) = verify::compare_within(tolerance(twin), &found.values, &twin.param, None);
        assert_eq!(failure, None, "{}: {what}, {}", gpu().adapter, found.path);
    }
}

fn twins(model: &Mlp, recipe: Recipe) -> Vec<reference::Tensor<f32>> {
    read(model).into_iter().map(|p| p.twin(recipe)).collect()
}

/// Steps a model and its twins with the same gradients.
fn run(optim: &mut GpuModuleOptimizer, mut model: Mlp, twins: &mut [reference::Tensor<f32>]) -> Mlp {
    for t in 1..4 {
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
    }
    model
}

#[test]
fn every_recipe_follows_the_cpu() {
    for (name, recipe) in recipes() {
        for device in [gpu().device.clone(), autodiff()] {
            let mut model = Mlp::new(&device);
            let mut twins = twins(&model, recipe.with_lr(1e-2));
            let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
            model = run(&mut optim, model, &mut twins);
            assert_follows(&model, &twins, &name);
        }
    }
}

#[test]
fn a_model_is_evaluated_at_its_averages_and_trains_on() {
    let recipe = Recipe::from(ScheduleFreeAdamW::new(1e-2)).mgup();
    let mut model = Mlp::new(&autodiff());
    let mut twins = twins(&model, recipe);
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    // Nothing to average yet.
    model = optim.evaluate(model).unwrap();
    model = optim.train(model).unwrap();
    model = run(&mut optim, model, &mut twins);
    let kept = model.clone();
    let before = bits(&kept);
    model = optim.evaluate(model).unwrap();
    assert_eq!(bits(&kept), before, "a clone keeps its values");
    for (found, twin) in read(&model).iter().zip(&twins) {
        let (_, failure) = verify::compare_within(tolerance(twin), &found.values, &twin.evaluated(), None);
        assert_eq!(failure, None, "{}: {}", gpu().adapter, found.path);
    }
    let grads = gradients(&model, 4, &[]);
    let refused = optim.try_step(1e-2, model, grads).unwrap_err();
    assert!(refused.to_string().contains("`train`"), "{refused}");
    assert!(optim.to_record().is_err());
    model = optim.train(refused.model).unwrap();
    assert_follows(&model, &twins, "after the evaluation");
    let grads = gradients(&model, 4, &[]);
    model = optim.step(1e-2, model, grads);
    twins.iter_mut().enumerate().for_each(|(i, twin)| drop(twin.step(&gradient(twin.param.len(), i, 4))));
    assert_follows(&model, &twins, "after a step");
}

#[test]
fn a_model_is_evaluated_at_its_mean_over_the_steps_and_comes_back_to_the_bit() {
    let mean = |groups: ParamGroups| groups.with_average(Average::mean().start(1));
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).with_settings(mean);
    let mut model = Mlp::new(&autodiff());
    let mut seen = Vec::new();
    for t in 1..4 {
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        seen.push(read(&model));
    }
    let before = bits(&model);
    model = optim.evaluate(model).unwrap();
    for (at, found) in read(&model).iter().enumerate() {
        let [second, third] = [1, 2].map(|step: usize| &seen[step][at].values);
        let expected: Vec<f32> = second.iter().zip(third).map(|(a, b)| (a + b) / 2.0).collect();
        let (_, failure) = verify::compare_within((1e-7, 1e-6), &found.values, &expected, None);
        assert_eq!(failure, None, "{}: {}", gpu().adapter, found.path);
    }
    model = optim.train(model).unwrap();
    assert_eq!(bits(&model), before);
}

#[test]
fn parameters_without_averages_stay_as_they_are() {
    let averaged = Recipe::from(ScheduleFreeAdamW::new(1e-2));
    let mut optim =
        GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).with_group(ParamGroup::from_predicate("second"), averaged);
    let model = Mlp::new(&autodiff());
    let mut twins = twins(&model, Recipe::adamw(1e-2));
    let model = run(&mut optim, model, &mut twins);
    let before = read(&model);
    let after = read(&optim.evaluate(model).unwrap());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.values != after.values, before.path.starts_with("second"), "{}", before.path);
    }
}

#[test]
fn parameters_stay_in_place_unless_a_clone_of_the_model_is_alive() {
    let mut model = Mlp::new(&autodiff());
    let mut twins = twins(&model, Recipe::adamw(1e-2));
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2));
    let mut kept = Vec::new();
    for t in 1..7 {
        // In every second step a clone is alive, and it keeps its values.
        if t % 2 == 0 {
            kept.push((model.clone(), bits(&model)));
        }
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
        assert_follows(&model, &twins, "clones");
    }
    for (clone, expected) in kept {
        assert_eq!(bits(&clone), expected);
    }
}

#[test]
fn a_group_takes_other_hyper_parameters_from_the_next_step_on() {
    let first = AdamW::new(1e-2).weight_decay(0.1);
    let then = first.betas([0.8, 0.95]).weight_decay(0.5);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::lion(1e-2)).with_group(Select::Rank(2), Recipe::lion(1e-2));
    // Before the first step any recipe will do.
    optim.set_recipe(0, first).unwrap();
    optim.set_recipe(1, first).unwrap();
    let mut model = Mlp::new(&autodiff());
    let mut twins = twins(&model, first.into());
    let is_matrix: Vec<_> = read(&model).iter().map(|values| values.shape.len() == 2).collect();
    for t in 1..5 {
        if t == 3 {
            optim.set_recipe(1, then).unwrap();
            twins.iter_mut().zip(&is_matrix).filter(|(_, is)| **is).for_each(|(twin, _)| twin.recipe = then.into());
        }
        // Refusals change nothing.
        let refused: [(usize, Recipe, &str); 3] = [
            (2, then.into(), "unknown_group"),
            (1, then.weight_decay(-1.0).into(), "recipe"),
            (1, Recipe::muon(1.0), "group"),
        ];
        for (group, recipe, code) in refused.into_iter().filter(|(.., code)| t > 1 || *code != "group") {
            assert_eq!(optim.set_recipe(group, recipe).unwrap_err().code(), code);
        }
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
        assert_follows(&model, &twins, "another recipe");
    }
}

#[test]
fn a_model_that_changes_place_between_steps_stays_correct() {
    struct Move;
    impl burn::module::ModuleMapper for Move {
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            param.map(|old| Tensor::from_data(old.into_data(), &autodiff()).require_grad())
        }
    }
    let mut model = Mlp::new(&autodiff());
    let recipe = Recipe::adamw(1e-2).mgup();
    let mut twins = twins(&model, recipe);
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    let mut filler = Vec::new();
    for t in 1..6 {
        // New storage for the parameters, and something else in the old.
        filler.push(Tensor::<1>::ones([300 * t as usize], &gpu().device) * t as f32);
        model = model.map(&mut Move);
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
    }
    assert_follows(&model, &twins, "moved");
}

#[test]
fn a_parameter_without_a_gradient_keeps_its_state_and_its_count() {
    let mut model = Mlp::new(&autodiff());
    let recipe = Recipe::adamw(1e-2).mgup();
    let mut twins = twins(&model, recipe);
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    // The second weight has its first gradient in step 3, the first bias misses step 2, the scale is frozen.
    for t in 1..6 {
        let mut without = vec!["scale"];
        if t < 3 {
            without.push("second.weight");
        }
        if t == 2 {
            without.push("first.bias");
        }
        let grads = gradients(&model, t, &without);
        model = optim.step(1e-2, model, grads);
        for (i, (twin, Values { path, .. })) in twins.iter_mut().zip(read(&model)).enumerate() {
            if !without.contains(&path.as_str()) {
                twin.step(&gradient(twin.param.len(), i, t));
            }
        }
    }
    assert_eq!(twins.iter().map(|t| t.steps).collect::<Vec<_>>(), [5, 4, 3, 5, 0]);
    assert_follows(&model, &twins, "without gradients");
}

// On SwiftShader, where SPIR-V is tested, the gradients of Burn's own SPIR-V kernels are wrong: zeros and NaN.
#[cfg(not(feature = "vulkan"))]
#[test]
fn frozen_layers_stay_as_they_are() {
    let mut model = Mlp::new(&autodiff());
    model.first = model.first.no_grad();
    let before = bits(&model);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2));
    for t in 0..3 {
        let grads = model.backward(t);
        model = optim.step(1e-2, model, grads);
    }
    let after = bits(&model);
    assert_eq!(after[..2], before[..2]);
    assert!(after[2..].iter().zip(&before[2..]).all(|(a, b)| a != b));
    // Thawed, they get state and move.
    model.first.weight = model.first.weight.set_require_grad(true);
    let grads = model.backward(3);
    model = optim.step(1e-2, model, grads);
    assert_ne!(bits(&model)[0], before[0]);
    assert_eq!(bits(&model)[1], before[1]);
}

#[test]
fn groups_are_disjoint_and_the_last_match_wins() {
    let mut model = Mlp::new(&autodiff());
    let [all, matrices, second] = [Recipe::adamw(1e-2), Recipe::adamw(1e-2).mgup(), Recipe::lion(1e-2)];
    let mut optim = GpuModuleOptimizer::new(gpu(), all)
        .with_group(Select::Rank(2), matrices)
        .with_group(ParamGroup::from_predicate("second"), second);
    let recipes = [matrices, all, second, second, all];
    let mut twins: Vec<_> = read(&model)
        .into_iter()
        .zip(recipes)
        .map(|(p, recipe)| reference::Tensor::new(recipe, p.values).unwrap())
        .collect();
    model = run(&mut optim, model, &mut twins);
    assert_follows(&model, &twins, "groups");
}

#[test]
fn every_group_of_burns_learning_rates_has_its_own() {
    let mut model = Mlp::new(&autodiff());
    let mut twins = twins(&model, Recipe::adamw(1e-2));
    for twin in &mut twins[2..4] {
        twin.recipe = Recipe::adamw(1e-3);
    }
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(7.0));
    let mut rates = burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler::new(
        burn::lr_scheduler::constant::ConstantLr::from(1e-2),
    )
    .with_group(ParamGroup::from_predicate("second"), burn::lr_scheduler::constant::ConstantLr::from(1e-3));
    for t in 1..4 {
        let rates: ModuleLearningRate = rates.step();
        let grads = gradients(&model, t, &[]);
        model = optim.step(rates, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
    }
    assert_follows(&model, &twins, "learning rates");
}

#[test]
fn clipping_is_global() {
    let mut model = Mlp::new(&autodiff());
    let mut twins = twins(&model, Recipe::lion(1e-2));
    let lion = Recipe::from(Base::Lion(Lion::default()));
    let mut optim = GpuModuleOptimizer::new(gpu(), lion)
        .with_group(Select::NotRank(2), Recipe::adamw(1e-2))
        .with_max_grad_norm(0.25);
    for i in [1, 3, 4] {
        twins[i].recipe = Recipe::adamw(1e-2);
        twins[i] = reference::Tensor::new(Recipe::adamw(1e-2), twins[i].param.clone()).unwrap();
    }
    for t in 1..4 {
        let grads = gradients(&model, t, &[]);
        model = optim.step(1e-2, model, grads);
        let grads: Vec<_> = twins.iter().enumerate().map(|(i, twin)| gradient(twin.param.len(), i, t)).collect();
        let norm = reference::grad_norm(grads.iter().map(|g| &g[..]));
        let found = optim.grad_norm().unwrap();
        assert!((norm - found).abs() <= 1e-5 * norm, "{norm}, {found}");
        let factor = reference::clip_factor(found, 0.25);
        assert!(factor < 1.0);
        for (twin, grad) in twins.iter_mut().zip(&grads) {
            twin.step(&grad.iter().map(|g| factor * g).collect::<Vec<_>>());
        }
    }
    assert_follows(&model, &twins, "clipped");
}

/// The optimizers that the tests with a transformer compare.
fn of_transformers() -> impl Iterator<Item = (&'static str, Recipe, ModuleOptimizer)> {
    peers().into_iter().filter(|(name, ..)| ["adamw", "lion"].contains(name))
}

#[test]
fn fifty_steps_equal_those_of_burns_own_optimizers() {
    for (name, recipe, mut peer) in peers() {
        let mut theirs = Mlp::new(&autodiff());
        let mut ours = theirs.clone();
        let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
        let mut flips = Flips::new(&ours);
        let mut still = Vec::new();
        for t in 1..=50 {
            let grads = gradients(&ours, t, &[]);
            flips.step(&values(&grads, &ours));
            if t == 1 {
                // Where the momentum is 0, Burn decays positive parameters; we decay both, as the paper does.
                let zero = |grads: Vec<f32>| grads.iter().map(|&g| g == 0.0).collect::<Vec<_>>();
                still = values(&grads, &ours).into_iter().map(zero).collect();
            }
            ours = optim.step(1e-2, ours, grads);
            let grads = gradients(&theirs, t, &[]);
            theirs = peer.step(1e-2, theirs, grads);
        }
        for (((a, b), flipped), still) in read(&ours).iter().zip(read(&theirs)).zip(&flips.flipped).zip(&still) {
            for (i, (a, b)) in a.values.iter().zip(&b.values).enumerate() {
                let is_left_out = (name == "lion" && flipped[i]) || (name == "cautious decay" && still[i]);
                let close = is_left_out || (a - b).abs() <= 1e-6 + 1e-5 * b.abs();
                assert!(close, "{}: {name} at {i}: {a}, Burn's {b}", gpu().adapter);
            }
        }
    }
}

/// The coordinates of a model whose direction under Lion hung on rounding in some step.
struct Flips {
    momentum: Vec<Vec<f32>>,
    flipped: Vec<Vec<bool>>,
}

impl Flips {
    fn new<M: Module>(model: &M) -> Self {
        let sizes: Vec<_> = read(model).iter().map(|param| param.values.len()).collect();
        Self {
            momentum: sizes.iter().map(|&n| vec![0.0; n]).collect(),
            flipped: sizes.iter().map(|&n| vec![false; n]).collect(),
        }
    }

    fn step(&mut self, grads: &[Vec<f32>]) {
        let flipped = self.flipped.iter_mut().flatten();
        let momentum = self.momentum.iter_mut().flatten();
        for ((flipped, m), &g) in flipped.zip(momentum).zip(grads.iter().flatten()) {
            let (a, b) = (0.9 * f64::from(*m), 0.1 * f64::from(g));
            let parts = a.abs() + b.abs();
            // Or on whether what is no normal number is zero.
            *flipped |= parts > 0.0 && ((a + b).abs() <= 1e-6 * parts || parts < 1e-36);
            *m = 0.99 * *m + 0.01 * g;
        }
    }
}

fn values<M: Module>(grads: &GradientsParams, model: &M) -> Vec<Vec<f32>> {
    struct Values<'a>(&'a GradientsParams, Vec<Vec<f32>>);
    impl burn::module::ModuleVisitor for Values<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            let grad = self.0.get::<D>(param.id).expect("every parameter has a gradient");
            self.1.push(grad.into_data().try_to_vec().unwrap());
        }
    }
    let mut values = Values(grads, Vec::new());
    model.visit(&mut values);
    values.1
}

#[test]
fn the_same_gradients_move_a_transformer_as_burns_own_optimizers_do() {
    for (name, recipe, mut peer) in of_transformers() {
        let mut theirs = Transformer::new(&autodiff());
        let mut ours = theirs.clone();
        let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
        let mut flips = Flips::new(&ours);
        for t in 0..50 {
            // Their gradients, for both.
            let grads = theirs.backward(t);
            let again = copy(&grads, &theirs);
            if name == "lion" {
                flips.step(&values(&grads, &theirs));
            }
            theirs = peer.step(1e-3, theirs, grads);
            ours = optim.step(1e-3, ours, again);
        }
        let all = flips.flipped.iter().flatten().count();
        let hung = flips.flipped.iter().flatten().filter(|&&flipped| flipped).count();
        assert!(hung <= all / 1000, "{hung} of {all} coordinates hung on rounding");
        for ((a, b), flipped) in read(&ours).iter().zip(read(&theirs)).zip(&flips.flipped) {
            for (i, (a, b)) in a.values.iter().zip(&b.values).enumerate() {
                let close = flipped[i] || (a - b).abs() <= 1e-6 + 1e-5 * b.abs();
                assert!(close, "{}: {name} at {i}: {a}, Burn's {b}", gpu().adapter);
            }
        }
    }
}

fn copy<M: Module>(grads: &GradientsParams, model: &M) -> GradientsParams {
    struct Copy<'a>(&'a GradientsParams, GradientsParams);
    impl burn::module::ModuleVisitor for Copy<'_> {
        fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
            if let Some(grad) = self.0.get::<D>(param.id) {
                self.1.register(param.id, grad);
            }
        }
    }
    let mut copy = Copy(grads, GradientsParams::new());
    model.visit(&mut copy);
    copy.1
}

// On SwiftShader, where SPIR-V is tested, the gradients of Burn's own SPIR-V kernels are wrong: zeros and NaN.
#[cfg(not(feature = "vulkan"))]
#[test]
fn training_runs_lose_as_burns_own_do() {
    for (name, recipe, mut peer) in of_transformers() {
        let mut theirs = Transformer::new(&autodiff());
        let mut ours = theirs.clone();
        let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
        let mut losses = [Vec::new(), Vec::new()];
        for t in 0..50 {
            let (a, b) = (ours.loss(t), theirs.loss(t));
            losses[0].push(a.clone().into_scalar::<f32>());
            losses[1].push(b.clone().into_scalar::<f32>());
            let grads = GradientsParams::from_grads(a.backward(), &ours);
            ours = optim.step(1e-3, ours, grads);
            let grads = GradientsParams::from_grads(b.backward(), &theirs);
            theirs = peer.step(1e-3, theirs, grads);
        }
        let mean = |part: &[f32]| part.iter().sum::<f32>() / part.len() as f32;
        let learned = mean(&losses[0][..10]) - mean(&losses[0][40..]);
        assert!(learned > 0.02, "{name} does not learn: {:?}", losses[0]);
        for (a, b) in losses[0].iter().zip(&losses[1]) {
            assert!((a - b).abs() <= 1e-3, "{}: {name}: {a}, Burn's {b}", gpu().adapter);
        }
    }
}

#[test]
fn the_tape_and_its_strategy_survive_a_step() {
    let device = autodiff().gradient_checkpointing();
    let mut model = Mlp::new(&device);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3));
    for t in 0..2 {
        let input = Tensor::<2>::ones([4, 33], &device);
        let loss = model.forward(input).mean();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        assert_eq!(grads.len(), 5, "step {t}");
        model = optim.step(1e-3, model, grads);
        let weight = model.first.weight.val();
        assert!(weight.is_require_grad());
        assert_eq!(weight.gradient_checkpointing_strategy(), device.gradient_checkpointing_strategy());
    }
}
