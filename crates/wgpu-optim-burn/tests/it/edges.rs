//! Models that are not as usual: correct, or refused with the reason and the model intact.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use wgpu_optim::{Recipe, reference, verify};
use wgpu_optim_burn::GpuModuleOptimizer;

use crate::common::{Mlp, autodiff, bits, gpu, gradient, gradients, read};

fn refusal(model: Mlp, grads: GradientsParams, optim: &mut GpuModuleOptimizer) -> String {
    let before = bits(&model);
    let refused = optim.try_step(1e-2, model, grads).unwrap_err();
    assert_eq!(bits(&refused.model), before, "the model comes back as it was");
    refused.error.to_string()
}

#[derive(Module, Debug)]
struct Tied {
    embedding: Param<Tensor<2>>,
    head: Param<Tensor<2>>,
}

#[test]
fn tied_weights_move_together() {
    let shape = [12, 7];
    let new = || Tensor::<2>::from_data(burn::tensor::TensorData::new(verify::params(84), shape), &autodiff());
    let embedding = Param::from_tensor(new());
    let mut model = Tied { head: embedding.clone(), embedding };
    let recipe = Recipe::adamw(1e-2).mgup();
    let mut twin = reference::Tensor::new(recipe, verify::params(84)).unwrap();
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    for t in 1..4 {
        let grads = gradients(&model, t, &[]);
        // By id there is one gradient: the second registration has replaced the first.
        twin.step(&gradient(84, 1, t));
        model = optim.step(1e-2, model, grads);
        let found = read(&model);
        assert_eq!(found[0].values, found[1].values, "step {t}");
        assert_eq!(verify::compare(&found[0].values, &twin.param, None).1, None);
    }
    // Of one id, but no longer of one storage, as a copy that was trained apart: only the first steps.
    model.head = Param::initialized(model.head.id, new().require_grad());
    let before = bits(&model);
    let grads = gradients(&model, 4, &[]);
    model = optim.step(1e-2, model, grads);
    assert_ne!(bits(&model)[0], before[0]);
    assert_eq!(bits(&model)[1], before[1]);
}

#[test]
fn gradients_of_all_uses_of_a_tied_parameter_add_up_in_every_step() {
    let at = |seed: usize| {
        let values = verify::params(84 + seed)[seed..].to_vec();
        Tensor::<2>::from_data(burn::tensor::TensorData::new(values, [12, 7]), &gpu().device)
    };
    let embedding = Param::from_tensor(Tensor::from_inner(at(0)));
    let mut model = Tied { head: embedding.clone(), embedding };
    let recipe = Recipe::adamw(1e-2);
    let mut twin = reference::Tensor::new(recipe, verify::params(84)).unwrap();
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    for t in 1..4 {
        let (by_one, by_other) = (at(t), at(t + 3));
        let loss = (model.embedding.val() * Tensor::from_inner(by_one.clone())).sum()
            + (model.head.val() * Tensor::from_inner(by_other.clone())).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        twin.step(&(by_one + by_other).into_data().try_to_vec::<f32>().unwrap());
        model = optim.step(1e-2, model, grads);
        let found = read(&model);
        assert_eq!(found[0].values, found[1].values, "step {t}");
        assert_eq!(verify::compare(&found[0].values, &twin.param, None).1, None, "step {t}");
    }
}

#[test]
fn a_transposed_view_of_a_parameter_is_not_tied() {
    let device = &gpu().device;
    let values = burn::tensor::TensorData::new(verify::params(36), [6, 6]);
    let tensor = Tensor::<2>::from_data(values, device);
    let embedding = Param::from_tensor(Tensor::from_inner(tensor.clone()));
    let head = Param::initialized(embedding.id, Tensor::from_inner(tensor.transpose()).require_grad());
    let model = Tied { embedding, head };
    let before = bits(&model);
    let grads = gradients(&model, 1, &[]);
    let model = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).step(1e-2, model, grads);
    assert_ne!(bits(&model)[0], before[0]);
    assert_eq!(bits(&model)[1], before[1]);
}

#[test]
fn a_frozen_copy_of_a_parameter_is_not_tied() {
    let embedding = Param::from_tensor(Tensor::<2>::ones([4, 4], &autodiff()));
    let model = Tied { head: embedding.clone().set_require_grad(false), embedding };
    let before = bits(&model);
    let grads = gradients(&model, 1, &[]);
    let model = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).step(1e-2, model, grads);
    assert_ne!(bits(&model)[0], before[0]);
    assert_eq!(bits(&model)[1], before[1]);
}

#[test]
fn parameters_of_size_zero_are_left_alone() {
    let mut model = Mlp::new(&autodiff());
    model.scale = Param::from_tensor(Tensor::<1>::zeros([0], &autodiff()));
    let before = bits(&model);
    let grads = gradients(&model, 1, &[]);
    let model = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).step(1e-2, model, grads);
    let after = bits(&model);
    assert!(after[..4].iter().zip(&before[..4]).all(|(a, b)| a != b));
    assert_eq!(after[4], [0u32; 0]);
}

#[test]
fn a_model_without_gradients_stays_as_it_is() {
    let model = Mlp::new(&autodiff());
    let before = bits(&model);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2));
    let model = optim.step(1e-2, model, GradientsParams::new());
    assert_eq!(bits(&model), before);
}

// SwiftShader, on which SPIR-V is tested, has no f16.
#[cfg(not(feature = "vulkan"))]
#[test]
fn half_precision_is_refused() {
    let mut model = Mlp::new(&autodiff());
    let weight = model.second.weight.val().cast(burn::tensor::FloatDType::F16);
    model.second.weight = Param::initialized(model.second.weight.id, weight);
    let grads = gradients(&model, 1, &[]);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2));
    let refused = optim.try_step(1e-2, model, grads).unwrap_err();
    let error = refused.error.to_string();
    assert!(error.starts_with("parameter `second.weight`: it is F16, but the optimizer steps F32"), "{error}");
}

#[test]
fn another_device_is_refused_with_what_to_do() {
    let flex = Device::flex().autodiff();
    let model = Mlp::new(&flex);
    let grads = gradients(&model, 1, &[]);
    let error = refusal(model, grads, &mut GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)));
    assert!(error.contains("move the model there with `model.to_device(&gpu.device)`"), "{error}");
}

#[test]
fn a_shape_that_changes_is_refused() {
    let mut model = Mlp::new(&autodiff());
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2));
    let grads = gradients(&model, 1, &[]);
    model = optim.step(1e-2, model, grads);
    let weight = Tensor::<1>::ones([3], &autodiff()).require_grad();
    model.scale = Param::initialized(model.scale.id, weight);
    let grads = gradients(&model, 2, &[]);
    let error = refusal(model, grads, &mut optim);
    assert_eq!(error, "parameter `scale`: its shape was [1] and is [3]");
}

#[test]
fn settings_out_of_range_are_refused() {
    for (optim, expected) in [
        (GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)), "`lr` is NaN"),
        (GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).with_max_grad_norm(-1.0), "`max_grad_norm` is -1"),
    ] {
        let mut optim = optim;
        let model = Mlp::new(&autodiff());
        let before = bits(&model);
        // A clone is alive, so that the step has new storage by the time it is refused.
        let clone = model.clone();
        let grads = gradients(&model, 1, &[]);
        let refused = optim.try_step(f64::NAN, model, grads).unwrap_err();
        assert!(refused.error.to_string().contains(expected), "{}", refused.error);
        assert_eq!(bits(&refused.model), before);
        assert_eq!(bits(&clone), before);
    }
}

#[test]
fn strided_parameters_and_gradients_are_brought_into_order() {
    let mut model = Mlp::new(&autodiff());
    // The same values as a transposed view.
    let transposed = model.first.weight.val().inner().transpose().into_data();
    let weight = Tensor::<2>::from_data(transposed, &gpu().device).transpose();
    model.first.weight = Param::initialized(model.first.weight.id, Tensor::from_inner(weight).require_grad());
    let recipe = Recipe::adamw(1e-2).mgup();
    let mut twins: Vec<_> =
        read(&model).into_iter().map(|p| reference::Tensor::new(recipe, p.values).unwrap()).collect();
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    for t in 1..4 {
        let mut grads = gradients(&model, t, &[]);
        let grad = grads.remove::<2>(model.second.weight.id).unwrap();
        let shape = grad.dims();
        let strided = Tensor::<2>::from_data(grad.transpose().into_data(), &gpu().device).transpose();
        assert_eq!(strided.dims(), shape);
        grads.register(model.second.weight.id, strided);
        model = optim.step(1e-2, model, grads);
        for (i, twin) in twins.iter_mut().enumerate() {
            twin.step(&gradient(twin.param.len(), i, t));
        }
    }
    for (found, twin) in read(&model).iter().zip(&twins) {
        assert_eq!(verify::compare(&found.values, &twin.param, None).1, None, "{}", found.path);
    }
}

#[test]
fn parameters_that_share_a_gradient_each_take_it() {
    // The gradient of a sum is one tensor for both terms.
    let ones = || Param::from_tensor(Tensor::<2>::ones([6, 5], &autodiff()));
    let mut model = Tied { embedding: ones(), head: ones() };
    let recipe = Recipe::adamw(1e-2);
    let mut twin = reference::Tensor::new(recipe, vec![1.0; 30]).unwrap();
    let mut optim = GpuModuleOptimizer::new(gpu(), recipe);
    for _ in 0..2 {
        let loss = (model.embedding.val() + model.head.val()).sum();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        assert_eq!(grads.len(), 2);
        model = optim.step(1e-2, model, grads);
        twin.step(&[1.0; 30]);
    }
    for found in read(&model) {
        assert_eq!(verify::compare(&found.values, &twin.param, None).1, None, "{}", found.path);
    }
}
