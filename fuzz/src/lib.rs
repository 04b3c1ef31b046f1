//! What the fuzz targets share.

use std::path::Path;

use wgpu_optim::{GpuOptimizer, TensorSpec, adapter, wgpu};

/// Adds inputs to the corpus that libFuzzer was started with: mutations of what is valid get further than those of nothing.
pub fn seed(inputs: impl IntoIterator<Item = Vec<u8>>) {
    let corpus = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let Some(corpus) = corpus.filter(|corpus| Path::new(corpus).is_dir()) else { return };
    for (index, input) in inputs.into_iter().enumerate() {
        std::fs::write(Path::new(&corpus).join(format!("seed-{index}")), input).expect("the corpus can be written");
    }
}

/// A device of the adapter that the environment chooses.
pub fn device() -> (wgpu::Device, wgpu::Queue) {
    let (_, adapter) = pollster::block_on(adapter::from_env()).expect("an adapter");
    pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).expect("a device")
}

/// A matrix, and a vector with settings of its own.
pub fn specs() -> [TensorSpec; 2] {
    [TensorSpec::new("w", [4, 6]), TensorSpec::new("b", [5]).in_group(1)]
}

/// Parameters, states and counts.
pub fn bits(optimizer: &GpuOptimizer) -> (Vec<u32>, u64, Vec<u64>) {
    let mut values = Vec::new();
    for spec in specs() {
        for state in optimizer.state_names(&spec.name).unwrap() {
            values.extend(optimizer.read_state_blocking(&spec.name, state).unwrap());
        }
        values.extend(optimizer.read_param_blocking(&spec.name).unwrap());
    }
    let steps = specs().map(|spec| optimizer.steps(&spec.name).unwrap()).to_vec();
    (values.into_iter().map(f32::to_bits).collect(), optimizer.recorded_steps(), steps)
}
