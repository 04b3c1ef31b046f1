//! A long run: as near the truth at its end as the CPU is, with as much memory and as fast as at its beginning. In a process of
//! its own, whose memory is measured.

mod common;

use std::time::Instant;

use common::gpus;
use wgpu_optim::{GpuOptimizer, ParamGroups, Recipe, TensorSpec, reference, verify};

/// 100,000 where there is time: STEPS, without validation layers, which keep the labels of every step (WGPU_VALIDATION=0).
fn steps() -> u64 {
    std::env::var("STEPS").map_or(3_000, |text| text.parse().expect("a number of steps")).max(10)
}

/// Bytes that are resident. Those of a software adapter's device are among them.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap()
}

fn specs() -> Vec<TensorSpec> {
    vec![TensorSpec::new("matrix", [24, 40]), TensorSpec::new("bias", [40])]
}

/// The root of the mean square of the differences.
fn distance(values: &[f64], truth: &[f64]) -> f64 {
    let sum: f64 = values.iter().zip(truth).map(|(value, truth)| (value - truth).powi(2)).sum();
    (sum / truth.len() as f64).sqrt()
}

/// Steps whose time is taken.
const ROUND: u64 = 40;

/// Of a round of steps with their gradients, until they are done.
fn seconds(optimizer: &mut GpuOptimizer) -> f64 {
    let begun = Instant::now();
    for t in 0..ROUND {
        for spec in specs() {
            optimizer.write_grad(&spec.name, &verify::grads(spec.numel() as usize, t)).unwrap();
        }
        optimizer.step().unwrap();
        while optimizer.take_telemetry().is_some() {}
    }
    optimizer.read_param_blocking("bias").unwrap();
    begun.elapsed().as_secs_f64()
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_run_neither_drifts_nor_grows_nor_slows() {
    let gpu = gpus().remove(0);
    for name in ["adamw", "mgup-adamw"] {
        let recipe = name.parse::<Recipe>().unwrap().with_lr(1e-3);
        let groups = ParamGroups::from(recipe).with_telemetry(100);
        let mut optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs(), groups).unwrap();
        let start = |spec: &TensorSpec| verify::params(spec.numel() as usize);
        let mut single: Vec<reference::Tensor<f32>> = Vec::new();
        let mut double: Vec<reference::Tensor<f64>> = Vec::new();
        for spec in specs() {
            optimizer.write_param(&spec.name, &start(&spec)).unwrap();
            single.push(reference::Tensor::with_shape(recipe, &spec, start(&spec)).unwrap());
            let wide = start(&spec).into_iter().map(f64::from).collect();
            double.push(reference::Tensor::with_shape(recipe, &spec, wide).unwrap());
        }
        // Resident bytes after each tenth of the run.
        let mut tenths = Vec::new();
        for t in 0..steps() {
            for (i, spec) in specs().iter().enumerate() {
                let grad = verify::grads(spec.numel() as usize, t);
                optimizer.write_grad(&spec.name, &grad).unwrap();
                single[i].step(&grad);
                double[i].step(&grad.into_iter().map(f64::from).collect::<Vec<_>>());
            }
            optimizer.step().unwrap();
            while optimizer.take_telemetry().is_some() {}
            if (t + 1) % (steps() / 10) == 0 {
                optimizer.read_param_blocking("bias").unwrap();
                tenths.push(resident());
            }
        }
        let (mut gpu_error, mut cpu_error) = (0.0f64, 0.0f64);
        for (i, spec) in specs().iter().enumerate() {
            let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
            let found = wide(&optimizer.read_param_blocking(&spec.name).unwrap());
            gpu_error = gpu_error.max(distance(&found, &double[i].param));
            cpu_error = cpu_error.max(distance(&wide(&single[i].param), &double[i].param));
        }
        let grown = tenths[tenths.len() - 1] as i64 - tenths[1] as i64;
        // Large pages of the system may add a mebibyte or two, once; what leaks does so again.
        let mut again = grown;
        if grown >= 1 << 20 {
            let before = resident() as i64;
            for _ in 0..steps() / ROUND * 4 / 5 {
                seconds(&mut optimizer);
            }
            again = resident() as i64 - before;
        }
        // Other programs share the machine, so its speed is compared with that of a new one at the same time.
        let fresh_gpu = gpus().remove(0);
        let mut fresh =
            GpuOptimizer::new_blocking(&fresh_gpu.device, &fresh_gpu.queue, &specs(), optimizer.groups().clone())
                .unwrap();
        let mut ratios: Vec<f64> = (0..21).map(|_| seconds(&mut optimizer) / seconds(&mut fresh)).collect();
        ratios.sort_by(f64::total_cmp);
        let slower = ratios[ratios.len() / 2];
        println!(
            "{}: {name}, {} steps: {gpu_error:.2e} from f64 (CPU in f32: {cpu_error:.2e}), {grown} bytes more than after a \
             fifth, {slower:.2} times the time of a new one",
            gpu.name,
            steps(),
        );
        assert!(gpu_error <= 2.0 * cpu_error, "{name}: {gpu_error} from f64, the CPU {cpu_error}");
        assert!(grown < 4 << 20 && again < 1 << 20, "{name}: {grown} bytes more, and {again} in as many steps again");
        assert!(slower < 1.5, "{name}: {slower} times the time of a new one; {ratios:.2?}");
    }
}
