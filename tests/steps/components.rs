//! Learning rates of components, as splatting has them: one for positions, one for colours, in one tensor.

use crate::common::{gpus, shared_gpus};
use wgpu_optim::{GpuOptimizer, Miss, ParamGroups, Recipe, TensorSpec, reference, verify, wgpu};

fn specs() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("splats", [6000, 14]).with_components(14),
        TensorSpec::new("points", [333, 3]).with_components(3),
        TensorSpec::new("plain", [70_001]),
        TensorSpec::new("matrix", [24, 20]).with_components(20),
        TensorSpec::new("odd", [7 * 9001]).with_components(7),
    ]
}

fn factors(count: usize) -> Vec<f32> {
    (0..count).map(|i| [1.0, 0.25, 0.0, 3.0][i % 4] * 0.9f32.powi(i as i32 / 4)).collect()
}

#[test]
fn every_component_has_its_own_rate() {
    for gpu in shared_gpus().iter() {
        for (name, missed) in [
            ("adamw", false),
            ("cautious-adamw", false),
            ("mgup-adamw", false),
            ("mgup-adamw", true),
            ("mgup-adamw-approximate", false),
            ("mgup-lion", false),
            ("mgup-adago", false),
            ("mgup-namo-d", false),
            ("adafactor", false),
            ("mgup-schedule-free-adamw", false),
            ("mgup-schedule-free-adamw", true),
        ] {
            let (_, recipe) = verify::recipes().into_iter().find(|(known, _)| known == name).unwrap();
            let mut optimizer = gpu.optimizer(&specs(), recipe).unwrap();
            let mut twins: Vec<_> = specs()
                .iter()
                .map(|spec| {
                    let params = verify::params(spec.numel() as usize);
                    optimizer.write_param(&spec.name, &params).unwrap();
                    let mut twin = reference::Tensor::with_shape(recipe, spec, params).unwrap();
                    if spec.components > 0 {
                        twin.rates = factors(spec.components);
                        optimizer.write_rates(&spec.name, &twin.rates).unwrap();
                    }
                    twin
                })
                .collect();
            for t in 1..4 {
                for (i, (spec, twin)) in specs().iter().zip(&mut twins).enumerate() {
                    let grad = verify::grads(spec.numel() as usize, t + 100 * i as u64);
                    optimizer.write_grad(&spec.name, &grad).unwrap();
                    twin.step(&grad);
                }
                if missed {
                    optimizer.force_miss(Miss::Above);
                }
                optimizer.step().unwrap();
            }
            for (spec, twin) in specs().iter().zip(&twins) {
                let found = optimizer.read_param_blocking(&spec.name).unwrap();
                let matrix = twin.recipe.base.newton_schulz().is_some();
                let tolerance = if matrix { verify::MATRIX_TOLERANCE } else { verify::TOLERANCE };
                let wrong = found.iter().zip(&twin.param).filter(|(found, expected)| {
                    let allowed = tolerance.0 + tolerance.1 * f64::from(expected.abs());
                    (f64::from(**found) - f64::from(**expected)).abs() > allowed
                });
                // Rounding may decide between two scores.
                let most = if name.starts_with("mgup") { found.len() / 20_000 } else { 0 };
                let wrong = wrong.count();
                assert!(wrong <= most, "{}: {name}, {missed}, {}: {wrong} differ", gpu.name, spec.name);
            }
        }
    }
}

#[test]
fn rates_are_written_on_the_gpu_and_kept_in_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.safetensors");
    let gpu = &gpus()[0];
    let mut optimizer = gpu.optimizer(&specs(), Recipe::lion(0.5)).unwrap();
    let own = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 12,
        usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    gpu.queue.write_buffer(&own, 0, bytemuck::cast_slice(&[0.0f32, 1.0, 2.0]));
    let rates = optimizer.rates("points").unwrap();
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    encoder.copy_buffer_to_buffer(&own, 0, rates.buffer, rates.offset, 12);
    gpu.queue.submit([encoder.finish()]);
    optimizer.write_grad("points", &[1.0; 999]).unwrap();
    optimizer.step().unwrap();
    assert_eq!(optimizer.read_param_blocking("points").unwrap()[..6], [0.0, -0.5, -1.0, 0.0, -0.5, -1.0]);
    optimizer.save(&path).unwrap();
    let mut again = GpuOptimizer::resume(&gpu.device, &gpu.queue, &path).unwrap();
    again.write_grad("points", &[1.0; 999]).unwrap();
    again.step().unwrap();
    assert_eq!(again.read_param_blocking("points").unwrap()[..3], [0.0, -1.0, -2.0]);
}

#[test]
fn rates_that_do_not_fit_are_refused() {
    let gpu = &gpus()[0];
    let refused = |spec: TensorSpec| {
        let groups = ParamGroups::from(Recipe::adamw(1e-3));
        gpu.optimizer(&[spec], groups).unwrap_err().to_string()
    };
    let message = refused(TensorSpec::new("w", [10, 3]).with_components(4));
    assert!(message.contains("4 components do not divide"), "{message}");
    let message = refused(TensorSpec::new("w", [5000]).with_components(5000));
    assert!(message.contains("at most 4096"), "{message}");
    let optimizer = gpu.optimizer(&specs(), Recipe::adamw(1e-3)).unwrap();
    for (result, words) in [
        (optimizer.write_rates("plain", &[1.0]), "no components"),
        (optimizer.write_rates("points", &[1.0]), "1 values given, 3 needed"),
        (optimizer.write_rates("points", &[1.0, -1.0, 1.0]), "`rates[1]` is -1"),
        (optimizer.write_rates("none", &[1.0]), "no tensor is named"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
