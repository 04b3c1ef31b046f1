//! What holds for all groups: precision, the scale of the loss, micro-batches, telemetry; and checkpoints.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Distribution, Tensor};
use wgpu_optim::{GradScaler, NonFinite, ParamGroups, Precision, Recipe, verify};
use wgpu_optim_burn::{GpuModuleOptimizer, Select};

use crate::common::*;

/// Every setting but precision.
fn settings(groups: ParamGroups) -> ParamGroups {
    groups
        .with_accumulation(2)
        .with_max_grad_norm(10.0)
        .with_grad_scaler(GradScaler::default().init(8.0).interval(2))
        .with_telemetry(1)
}

fn optimizer() -> GpuModuleOptimizer {
    GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2).mgup())
        .with_group(Select::NotRank(2), Recipe::lion(1e-2))
        .with_settings(settings)
}

/// Gradients of a loss that was multiplied by `scale`.
fn scaled(model: &Mlp, t: u64, scale: f32) -> GradientsParams {
    let mut grads = gradients(model, t, &[]);
    let mut map = Scale { scale, grads: &mut grads };
    let _ = model.clone().map(&mut map);
    grads
}

struct Scale<'a> {
    scale: f32,
    grads: &'a mut GradientsParams,
}

impl ModuleMapper for Scale<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad * self.scale);
        }
        param
    }
}

fn run(mut model: Mlp, optim: &mut GpuModuleOptimizer, steps: std::ops::Range<u64>) -> Mlp {
    for t in steps {
        let scale = optim.loss_scale().unwrap().into_scalar::<f32>();
        let scale = if t == 4 { f32::INFINITY } else { scale };
        model = optim.step(1e-2, model.clone(), scaled(&model, t, scale));
    }
    model
}

#[test]
fn a_checkpoint_goes_on_to_the_bit_in_a_new_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let mut optim = optimizer();
    let refused = optim.save_checkpoint(&path, &Mlp::new(&autodiff()), BTreeMap::new());
    assert!(refused.unwrap_err().to_string().contains("no step was taken"));
    // Half a step, in both senses: a micro-batch is waiting, and a step was skipped.
    let model = run(Mlp::new(&autodiff()), &mut optim, 1..8);
    assert_eq!(optim.optimizer().unwrap().micro_batches(), 1);
    assert_eq!(optim.optimizer().unwrap().read_guarded_blocking().unwrap().skipped_steps, 1);
    let extra = BTreeMap::from([("epoch".to_owned(), "7".to_owned())]);
    optim.save_checkpoint(&path, &model, extra.clone()).unwrap();

    let mut again = optimizer();
    let mut fresh = Mlp::new(&autodiff());
    assert_eq!(again.load_checkpoint(&path, &mut fresh).unwrap(), extra);
    assert!(fresh.first.weight.val().is_require_grad());
    assert_eq!(bits(&fresh), bits(&model));
    let (model, fresh) = (run(model, &mut optim, 8..12), run(fresh, &mut again, 8..12));
    assert_eq!(bits(&fresh), bits(&model));
    let [one, other] = [&optim, &again].map(|o| o.optimizer().unwrap().read_guarded_blocking().unwrap());
    assert_eq!(one, other);

    // Of another optimizer.
    let (mut model, before) = (model.clone(), bits(&model));
    let plain = GpuModuleOptimizer::new(gpu(), Recipe::lion(1e-2));
    optim.save_checkpoint(&path, &model, BTreeMap::new()).unwrap();
    let refused = { plain }.load_checkpoint(&path, &mut model).unwrap_err().to_string();
    assert!(refused.contains("group"), "{refused}");
    assert_eq!(bits(&model), before);
}

#[test]
fn telemetry_and_the_scale_arrive() {
    let mut optim = optimizer();
    let scale = |optim: &GpuModuleOptimizer| optim.loss_scale().unwrap().into_scalar::<f32>();
    assert_eq!(scale(&optim), 8.0);
    let model = run(Mlp::new(&autodiff()), &mut optim, 1..3);
    assert_eq!(scale(&optim), 8.0);
    let _ = run(model, &mut optim, 3..5);
    // Its second micro-batch overflowed.
    assert_eq!(scale(&optim), 4.0);
    gpu().wgpu_device.poll(wgpu_optim::wgpu::PollType::wait_indefinitely()).unwrap();
    let first = optim.optimizer().unwrap().take_telemetry().unwrap().unwrap();
    assert_eq!((first.step, first.tensors.len()), (1, 5));
    assert!(first.tensors.iter().any(|tensor| tensor.k > 0 && tensor.selected == tensor.k));
    let second = optim.optimizer().unwrap().take_telemetry().unwrap().unwrap();
    assert!(second.guarded.unwrap().skipped);
}

/// Casts every parameter.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = Tensor::from_inner(tensor.inner().cast(self.0)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}

#[test]
fn parameters_of_two_bytes_learn_through_their_masters() {
    if !gpu().device.supports_dtype(DType::F16) {
        eprintln!("skipped: the device has no f16");
        return;
    }
    let device = autodiff();
    let mut model = Mlp::new(&device).map(&mut Cast(DType::F16));
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-4)).with_settings(|groups| {
        groups.with_precision(Precision::F16).with_grad_scaler(GradScaler::default().init(128.0))
    });
    let before = read(&model.clone().map(&mut Cast(DType::F32)));
    let mut losses = Vec::new();
    for _ in 0..30 {
        let input = Tensor::<2>::random([16, 33], Distribution::Default, (&device, DType::F32)).cast(DType::F16);
        let loss = model.forward(input).cast(DType::F32).powi_scalar(2).mean();
        losses.push(loss.clone().into_scalar::<f32>());
        let scale = Tensor::from_inner(optim.loss_scale().unwrap());
        let grads = GradientsParams::from_grads((loss * scale).backward(), &model);
        model = optim.step(1e-3, model, grads);
    }
    assert!(losses[29] < 0.9 * losses[0], "{losses:?}");
    let core = optim.optimizer().unwrap();
    assert_eq!(core.read_guarded_blocking().unwrap().skipped_steps, 0);
    for (before, after) in before.iter().zip(read(&model.map(&mut Cast(DType::F32)))) {
        let master = core.read_state_blocking(&after.path, "master").unwrap();
        let rounded = Precision::F16.decode(&Precision::F16.encode(&master), master.len());
        assert_eq!(rounded, after.values, "{}", after.path);
        assert!(before.values != after.values, "{}", after.path);
        // Masters are finer than what is stored.
        assert!(master != after.values || master.len() < 20, "{}", after.path);
    }
}

#[test]
fn another_precision_than_the_optimizers_is_refused() {
    let model = Mlp::new(&autodiff());
    let half = |groups: ParamGroups| groups.with_precision(Precision::F16);
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-3)).with_settings(half);
    let grads = gradients(&model, 1, &[]);
    let refused = optim.try_step(1e-3, model, grads).unwrap_err();
    assert!(refused.error.to_string().contains("but the optimizer steps F16"), "{}", refused.error);
}

#[test]
fn a_skipped_step_leaves_the_model_as_it_was() {
    let mut optim = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2))
        .with_settings(|groups| groups.with_non_finite(NonFinite::Skip));
    let mut model = Mlp::new(&autodiff());
    let grads = gradients(&model, 1, &[]);
    model = optim.step(1e-2, model, grads);
    let before = read(&model);
    let grads = scaled(&model, 2, f32::INFINITY);
    model = optim.step(1e-2, model, grads);
    assert_eq!(read(&model), before);
    let name = &before[0].path;
    assert_eq!(optim.optimizer().unwrap().read_steps_blocking(name).unwrap(), 1);
    // A record counts the steps that were taken.
    let record = optim.to_record().unwrap();
    let again = GpuModuleOptimizer::new(gpu(), Recipe::adamw(1e-2)).load_record(record).unwrap();
    let (mut optim, mut other) = (optim, again);
    let (one, two) = (model.clone(), model);
    let (grads, same) = (gradients(&one, 3, &[]), gradients(&two, 3, &[]));
    let (one, two) = (optim.step(1e-2, one, grads), other.step(1e-2, two, same));
    for (one, two) in read(&one).iter().zip(read(&two)) {
        assert_eq!(verify::compare(&one.values, &two.values, None).1, None);
    }
}
