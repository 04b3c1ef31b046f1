//! The end of a device.

use burn::backend::wgpu::WgpuSetup;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use wgpu_optim::{Recipe, adapter, wgpu};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};

#[derive(Module, Debug)]
struct Few {
    tensors: Vec<Param<Tensor<1>>>,
}

#[test]
fn a_lost_device_is_an_error() {
    let gpu = pollster::block_on(async {
        let (instance, adapter) = adapter::from_env().await.unwrap();
        // Burn's SPIR-V compiler needs some of them.
        let features = adapter.features().difference(wgpu::Features::all_experimental_mask());
        let descriptor = wgpu::DeviceDescriptor {
            required_features: features,
            required_limits: adapter.limits(),
            ..Default::default()
        };
        let (device, queue) = adapter.request_device(&descriptor).await.unwrap();
        let backend = adapter.get_info().backend;
        Gpu::register(WgpuSetup { instance, adapter, device, queue, backend }).unwrap()
    });
    let tensors = (1..4).map(|n| Param::from_tensor(Tensor::ones([8 * n], &gpu.device))).collect();
    let mut model = Few { tensors };
    let mut optim = GpuModuleOptimizer::new(&gpu, Recipe::adamw(1e-3));
    let grads = || {
        let mut grads = GradientsParams::new();
        for tensor in &model.tensors {
            grads.register(tensor.id, Tensor::<1>::ones(tensor.shape(), &gpu.device));
        }
        grads
    };
    let (first, second) = (grads(), grads());
    model = optim.step(1e-3, model, first);
    gpu.device.sync().unwrap();
    gpu.wgpu_device.destroy();
    let refused = optim.try_step(1e-3, model, second).unwrap_err();
    println!("{}", refused.error);
    assert!(refused.error.to_string().to_lowercase().contains("lost"), "{}", refused.error);
}
