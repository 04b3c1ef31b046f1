//! Both launch shapes give the same bits: neither the order of sums nor that of operations depends on the shape.

use crate::common::{self, Gpu};
use wgpu_optim::{
    GpuOptimizer, GradScaler, LaunchShape, NonFinite, ParamGroups, Precision, Recipe, TensorSpec, verify,
};

/// Matrices, small and large tensors, with ends inside a vector, a quarter and a chunk.
fn specs() -> [TensorSpec; 5] {
    [
        TensorSpec::new("matrix", [70, 90]),
        TensorSpec::new("small", [1026]),
        TensorSpec::new("odd", [4097]),
        TensorSpec::new("quarters", [9 * 1024]),
        TensorSpec::new("large", [70_003]),
    ]
}

/// Every kernel over coordinates, and what fills its slots differently. More recipes if the environment has `WGPU_OPTIM_ALL_RECIPES`.
fn recipes() -> Vec<(String, Recipe)> {
    if std::env::var_os("WGPU_OPTIM_ALL_RECIPES").is_some() {
        return verify::recipes();
    }
    let names = [
        "adamw",
        "cautious-adamw",
        "mgup-adamw",
        "mgup-lion",
        "mgup-lion-approximate",
        "grams",
        "cautious-mgup-muon",
        "mgup-muon",
        "mgup-muon-approximate",
        "mgup-schedule-free-adamw",
        "adafactor",
    ];
    names.map(|name| (name.to_owned(), name.parse().unwrap())).into()
}

/// The bits of parameters and states after three steps.
fn run(gpu: &Gpu, groups: &ParamGroups, shape: LaunchShape) -> Vec<(String, Vec<u32>)> {
    let groups = groups.clone().with_launch_shape(shape);
    let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer.poison_scratch();
    for t in 1..4 {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
        }
        optimizer.step().unwrap();
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let mut found = Vec::new();
    for spec in specs() {
        found.push((spec.name.clone(), bits(optimizer.read_param_blocking(&spec.name).unwrap())));
        for state in optimizer.state_names(&spec.name).unwrap() {
            let values = optimizer.read_state_blocking(&spec.name, state).unwrap();
            found.push((format!("{state} of {}", spec.name), bits(values)));
        }
    }
    found
}

#[track_caller]
fn assert_equal(gpu: &Gpu, name: &str, groups: &ParamGroups) {
    let [cpu, wide] = LaunchShape::ALL.map(|shape| run(gpu, groups, shape));
    for ((what, cpu), (_, wide)) in cpu.iter().zip(&wide) {
        let wrong = cpu.iter().zip(wide).position(|(a, b)| a != b);
        assert_eq!(wrong, None, "{}: {name}, {what}", gpu.name);
    }
}

#[test]
fn both_launch_shapes_give_the_same_bits() {
    for gpu in common::gpus() {
        for (name, recipe) in recipes() {
            assert_equal(&gpu, &name, &recipe.into());
        }
    }
}

#[test]
fn settings_do_the_same_in_both_launch_shapes() {
    for gpu in common::gpus() {
        for (name, precision) in
            [("adamw", Precision::F16), ("cautious-lion", Precision::Bf16), ("mgup-adamw", Precision::F32)]
        {
            let groups = ParamGroups::from(name.parse::<Recipe>().unwrap()).with_max_grad_norm(0.5);
            let groups = groups.with_non_finite(NonFinite::Skip).with_grad_scaler(GradScaler::default());
            assert_equal(&gpu, name, &groups.with_accumulation(2).with_precision(precision));
        }
    }
}
