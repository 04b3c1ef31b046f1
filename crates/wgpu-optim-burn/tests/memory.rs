//! Burn's own memory report over a long run, alone in its process.

use burn::backend::TensorMetadata;
use burn::cubecl::MemoryScope;
use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use wgpu_optim::Recipe;
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};

#[derive(Module, Debug)]
struct Many {
    tensors: Vec<Param<Tensor<1>>>,
}

impl Many {
    fn new(tensors: usize, device: &Device) -> Self {
        let new = |i: usize| Param::from_tensor(Tensor::ones([64 + 8 * i], device));
        Self { tensors: (0..tensors).map(new).collect() }
    }

    fn gradients(&self) -> GradientsParams {
        let mut grads = GradientsParams::new();
        for tensor in &self.tensors {
            grads.register(tensor.id, tensor.val().inner() * 2.0);
        }
        grads
    }
}

/// Bytes that Burn's allocator holds on the device of a tensor.
fn reserved(tensor: Tensor<1>) -> u64 {
    let primitive = tensor.inner().try_into_primitive::<burn::backend::Cube>().unwrap();
    primitive.device().client().memory_report(MemoryScope::Device).usage().bytes_reserved
}

#[test]
fn memory_does_not_grow_over_1000_steps_of_100_tensors() {
    let gpu = Gpu::open().unwrap();
    println!("adapter: {}", gpu.adapter);
    let device = gpu.device.clone().autodiff();
    let mut model = Many::new(100, &device);
    let mut optim = GpuModuleOptimizer::new(&gpu, Recipe::adamw(1e-4).mgup());
    let mut bytes = Vec::new();
    for step in 0..1000 {
        // A clone is alive in every tenth step, so that both ways of writing occur.
        let clone = (step % 10 == 0).then(|| model.clone());
        let grads = model.gradients();
        model = optim.step(1e-4, model, grads);
        drop(clone);
        if step % 100 == 99 {
            device.sync().unwrap();
            bytes.push(reserved(model.tensors[0].val()));
        }
    }
    assert!(bytes[0] > 0);
    // Burn's allocator settles in the first few hundred steps.
    assert!(bytes[5..].iter().all(|&now| now <= bytes[4]), "{bytes:?}");
}
