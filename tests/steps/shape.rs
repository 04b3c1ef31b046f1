//! Both launch shapes give the same bits: neither the order of sums nor that of operations depends on the shape.

use crate::common::{self, Gpu};
use wgpu_optim::{
    Average, GradScaler, LaunchShape, NonFinite, ParamGroups, Precision, Recipe, Rounding, StateFormat, TensorSpec,
    verify, wgpu,
};

/// Matrices, small and large tensors, with ends inside a vector, a quarter and a chunk.
fn specs() -> [TensorSpec; 6] {
    [
        TensorSpec::new("matrix", [70, 90]),
        TensorSpec::new("rows", [11, 1500]),
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
    let with_rows = Recipe::adamw(1e-3).to_json().replacen("\"lr\"", "\"second_moment\": \"row\", \"lr\"", 1);
    let names = [
        &with_rows,
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
        "adago",
        "lamadam",
    ];
    let recipe = |name: &str| name.parse().or_else(|_| Recipe::from_json(name)).unwrap();
    let in_bytes = ["cautious-adamw", "mgup-adamw", "mgup-lion", "mgup-muon"]
        .map(|name| (format!("{name} (8-bit state)"), recipe(name).with_state(StateFormat::EightBit)));
    names.map(|name| (name.to_owned(), recipe(name))).into_iter().chain(in_bytes).collect()
}

/// The bits of parameters and states after three steps, and of the norms in each.
fn run(gpu: &Gpu, groups: &ParamGroups, shape: LaunchShape) -> Vec<(String, Vec<u32>)> {
    let groups = groups.clone().with_launch_shape(shape).with_telemetry(1);
    let mut optimizer = gpu.optimizer(&specs(), groups).unwrap();
    for spec in specs() {
        optimizer.write_param(&spec.name, &verify::params(spec.numel() as usize)).unwrap();
    }
    optimizer.poison_scratch();
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let mut found = Vec::new();
    for t in 1..4 {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
        }
        optimizer.step().unwrap();
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        // A micro-batch has none.
        let observed = optimizer.take_telemetry().map(|telemetry| telemetry.unwrap().tensors);
        for tensor in observed.into_iter().flatten() {
            let values = [tensor.grad_norm, tensor.update_norm, tensor.alignment, tensor.threshold.unwrap_or(0.0)];
            found.push((format!("telemetry of {}", tensor.name), bits(values.into())));
        }
    }
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
    assert_eq!(cpu.len(), wide.len(), "{}: {name}", gpu.name);
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
            let groups = groups.with_average(Average::moving(0.9));
            assert_equal(&gpu, name, &groups.clone().with_accumulation(2).with_precision(precision));
            let rounding = Rounding::Stochastic { seed: 3 };
            let half = groups.with_precision(Precision::Bf16);
            assert_equal(&gpu, name, &half.clone().without_masters(rounding));
            let average = Average::moving(0.9).precision(Precision::Bf16);
            assert_equal(&gpu, name, &half.with_split_masters().with_average(average));
        }
    }
}
