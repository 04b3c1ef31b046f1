//! From Burn's tensors to the optimizer's arenas and back, without leaving the GPU.
//!
//! A step is one command buffer: every gradient is copied from Burn's buffer into the optimizer's arena,
//! the optimizer records its passes, and every parameter is copied from the arena into a new Burn tensor.
//! Three facts carry it:
//!
//! - Burn queues operations. Resolving a tensor runs what it waits for, and asking for its buffer submits
//!   that to the shared queue, so a command buffer submitted afterwards reads finished values. What Burn
//!   submits later sees ours.
//! - Burn packs small tensors into common buffers. A tensor is a range of a buffer, and the range is asked
//!   for anew in every step, because the allocator may move it between steps; holding the resource keeps it
//!   in place until the submit.
//! - A parameter's buffer may be shared with clones of the model. So a step fills new tensors and leaves
//!   the old alone.

use std::any::Any;

use anyhow::{Context, Result, anyhow, ensure};
use burn::backend::Cube;
use burn::backend::wgpu::{AutoCompiler, CubeBackend, WgpuResource};
use burn::cubecl::wgpu::WgpuServer;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Gradients, Tensor};
use wgpu_optim::{GpuOptimizer, Recipe, TensorSlice, TensorSpec, wgpu};

use crate::gpu::Gpu;

/// A `wgpu-optim` optimizer that steps the parameters of a Burn module.
pub struct Bridge {
    optimizer: GpuOptimizer,
    device: wgpu::Device,
    queue: wgpu::Queue,
}

impl Bridge {
    /// An optimizer over all float parameters of `model`, which it knows by their paths (`layers.0.weight`).
    pub fn new<M: Module>(gpu: &Gpu, model: &M, recipe: Recipe) -> Result<Self> {
        let mut parameters = Parameters::default();
        model.visit(&mut parameters);
        let parameters = parameters.found?;
        let specs: Vec<_> =
            parameters.iter().map(|p| TensorSpec::new(p.name.as_str(), p.shape.clone())).collect();
        let optimizer = GpuOptimizer::new_blocking(&gpu.device, &gpu.queue, &specs, recipe)?;
        let bridge = Self { optimizer, device: gpu.device.clone(), queue: gpu.queue.clone() };
        let mut encoder = bridge.encoder();
        for parameter in &parameters {
            let arena = bridge.optimizer.param(&parameter.name)?;
            parameter.copy_to(&arena, &mut encoder)?;
        }
        bridge.queue.submit([encoder.finish()]);
        Ok(bridge)
    }

    /// One step: the model with new parameters. Only commands are recorded here; no value crosses to the
    /// host.
    pub fn step<M: Module>(&mut self, model: M, gradients: Gradients) -> Result<M> {
        let mut sources = GradientBuffers { gradients, path: Vec::new(), found: Ok(Vec::new()) };
        model.visit(&mut sources);
        let sources = sources.found?;
        let mut targets = NewParameters::default();
        let model = model.map(&mut targets);
        let targets = targets.found?;

        let mut encoder = self.encoder();
        for gradient in &sources {
            gradient.copy_to(&self.optimizer.grad(&gradient.name)?, &mut encoder)?;
        }
        self.optimizer.record(&mut encoder)?;
        for parameter in &targets {
            parameter.copy_from(&self.optimizer.param(&parameter.name)?, &mut encoder)?;
        }
        self.queue.submit([encoder.finish()]);
        Ok(model)
    }

    fn encoder(&self) -> wgpu::CommandEncoder {
        self.device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wgpu-optim-train.step") })
    }
}

/// The range of a buffer in which Burn keeps a tensor, held in place.
struct TensorBuffer {
    name: String,
    shape: Vec<usize>,
    range: WgpuResource,
    /// Cubecl's hold on the range, whose type has no public name.
    _held: Box<dyn Any>,
}

impl TensorBuffer {
    /// The buffer of `tensor` itself, which must be dense f32.
    fn new<const D: usize>(name: String, tensor: Tensor<D>) -> Result<Self> {
        let shape = tensor.dims().to_vec();
        let found = (|| {
            ensure!(tensor.dtype() == DType::F32, "it is {:?}, not F32", tensor.dtype());
            let tensor = tensor.try_into_primitive::<Cube>().map_err(|e| anyhow!("{e:?}"))?;
            let client = tensor.client.clone();
            let tensor = client.resolve_tensor_float::<CubeBackend>(tensor);
            ensure!(tensor.is_contiguous(), "its strides are {:?}", tensor.meta.strides());
            let resource = tensor.client.get_resource::<WgpuServer<AutoCompiler>>(tensor.handle)?;
            Ok(resource)
        })();
        let held = found.with_context(|| format!("no buffer for {name}"))?;
        Ok(Self { name, shape, range: held.resource().clone(), _held: Box::new(held) })
    }

    /// A buffer with the values of `tensor` in row-major order: its own, or a copy if it is transposed.
    fn dense<const D: usize>(name: String, tensor: Tensor<D>) -> Result<Self> {
        let shape = tensor.dims();
        // A flat tensor has one stride, so flattening a transposed one copies it.
        let mut buffer = Self::new(name, tensor.reshape([shape.iter().product::<usize>()]))?;
        buffer.shape = shape.to_vec();
        Ok(buffer)
    }

    fn check(&self, arena: &TensorSlice<'_>) -> Result<()> {
        let expected = 4 * self.shape.iter().product::<usize>() as u64;
        let here = self.range.size;
        ensure!(
            arena.size == expected && here >= expected,
            "{}: {expected} bytes in shape {:?}, but {here} in Burn's buffer and {} in the arena",
            self.name,
            self.shape,
            arena.size
        );
        Ok(())
    }

    fn copy_to(&self, arena: &TensorSlice<'_>, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check(arena)?;
        let here = &self.range;
        encoder.copy_buffer_to_buffer(&here.buffer, here.offset, arena.buffer, arena.offset, arena.size);
        Ok(())
    }

    fn copy_from(&self, arena: &TensorSlice<'_>, encoder: &mut wgpu::CommandEncoder) -> Result<()> {
        self.check(arena)?;
        let here = &self.range;
        encoder.copy_buffer_to_buffer(arena.buffer, arena.offset, &here.buffer, here.offset, arena.size);
        Ok(())
    }
}

/// Collects the parameters' present values.
struct Parameters {
    path: Vec<String>,
    found: Result<Vec<TensorBuffer>>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { path: Vec::new(), found: Ok(Vec::new()) }
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let buffer = TensorBuffer::dense(self.path.join("."), param.val().inner());
        push(&mut self.found, buffer);
    }
}

/// Collects the parameters' gradients.
struct GradientBuffers {
    gradients: Gradients,
    path: Vec<String>,
    found: Result<Vec<TensorBuffer>>,
}

impl ModuleVisitor for GradientBuffers {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let buffer = match param.val().grad_remove(&mut self.gradients) {
            Some(gradient) => TensorBuffer::dense(name, gradient),
            None => Err(anyhow!("{name} has no gradient")),
        };
        push(&mut self.found, buffer);
    }
}

/// Gives every parameter a new tensor, not yet written, and collects their buffers.
struct NewParameters {
    path: Vec<String>,
    found: Result<Vec<TensorBuffer>>,
}

impl Default for NewParameters {
    fn default() -> Self {
        Self { path: Vec::new(), found: Ok(Vec::new()) }
    }
}

impl ModuleMapper for NewParameters {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.join(".");
        param.map(|old| {
            let new = Tensor::<D>::empty(old.shape(), &old.device().inner());
            push(&mut self.found, TensorBuffer::new(name, new.clone()));
            Tensor::from_inner(new).set_require_grad(old.is_require_grad())
        })
    }
}

/// Adds a buffer, or keeps the first error.
fn push(found: &mut Result<Vec<TensorBuffer>>, buffer: Result<TensorBuffer>) {
    if let Ok(buffers) = found {
        match buffer {
            Ok(buffer) => buffers.push(buffer),
            Err(error) => *found = Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;
    use std::sync::OnceLock;

    use burn::tensor::TensorData;

    use super::*;
    use crate::model::Mlp;

    /// One device for all tests: Burn wants a device registered once.
    fn gpu() -> &'static Gpu {
        static GPU: OnceLock<Gpu> = OnceLock::new();
        GPU.get_or_init(|| {
            let gpu = Gpu::open().unwrap();
            println!("adapter: {}", gpu.adapter);
            gpu
        })
    }

    fn recipe() -> Recipe {
        Recipe::from_str("adamw").unwrap()
    }

    /// The bits of a range of a buffer.
    fn bits(buffer: &wgpu::Buffer, offset: u64, size: u64) -> Vec<u32> {
        let gpu = gpu();
        let copy = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, offset, &copy, 0, size);
        gpu.queue.submit([encoder.finish()]);
        copy.slice(..).map_async(wgpu::MapMode::Read, |r| r.unwrap());
        gpu.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let range = copy.slice(..).get_mapped_range().unwrap();
        bytemuck::pod_collect_to_vec(&range)
    }

    fn arena_bits(slice: TensorSlice<'_>) -> Vec<u32> {
        bits(slice.buffer, slice.offset, slice.size)
    }

    fn tensor_bits<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
        let values: Vec<f32> = tensor.inner().try_into_vec_as().unwrap();
        values.into_iter().map(f32::to_bits).collect()
    }

    /// Burn's own readback of a model's parameters, or of their gradients.
    struct Readback<'a> {
        gradients: Option<&'a Gradients>,
        path: Vec<String>,
        found: Vec<(String, Vec<u32>)>,
    }

    impl ModuleVisitor for Readback<'_> {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.path.push(name.into());
        }

        fn exit_module(&mut self, _: &str, _: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let tensor = match self.gradients {
                Some(gradients) => param.val().grad(gradients).unwrap(),
                None => param.val(),
            };
            self.found.push((self.path.join("."), tensor_bits(tensor)));
        }
    }

    fn readback(model: &Mlp, gradients: Option<&Gradients>) -> Vec<(String, Vec<u32>)> {
        let mut readback = Readback { gradients, path: Vec::new(), found: Vec::new() };
        model.visit(&mut readback);
        readback.found
    }

    fn pictures(rows: usize, features: usize) -> Tensor<2> {
        let values: Vec<f32> = (0..rows * features).map(|i| ((i * 7919) % 1000) as f32 / 1000.0).collect();
        Tensor::from_data(TensorData::new(values, [rows, features]), &gpu().burn.clone().autodiff())
    }

    fn gradients(model: &Mlp) -> Gradients {
        let targets: Vec<f32> = (0..8 * 3).map(|i| f32::from(i % 3 == i / 3 % 3)).collect();
        let targets = TensorData::new(targets, [8, 3]);
        let targets = Tensor::from_data(targets, &gpu().burn.clone().autodiff());
        model.loss(pictures(8, 5), targets).backward()
    }

    #[test]
    fn gradients_reach_the_arenas_and_parameters_come_back() {
        let gpu = gpu();
        let mut model = Mlp::new(&[5, 7, 3], 1, &gpu.burn.clone().autodiff());
        let mut bridge = Bridge::new(gpu, &model, recipe()).unwrap();
        let initial = readback(&model, None);
        assert_eq!(initial.len(), 4);
        for (name, expected) in &initial {
            assert_eq!(&arena_bits(bridge.optimizer.param(name).unwrap()), expected);
        }
        let first = model.clone();
        for step in 0..3 {
            let before = readback(&model, None);
            let gradients = gradients(&model);
            let expected = readback(&model, Some(&gradients));
            model = bridge.step(model, gradients).unwrap();
            for (name, expected) in &expected {
                assert!(expected.iter().any(|&b| b != 0), "{name}: all zero");
                let arena = arena_bits(bridge.optimizer.grad(name).unwrap());
                assert_eq!(&arena, expected, "gradient of {name}, step {step}");
            }
            for ((name, after), (_, before)) in readback(&model, None).iter().zip(&before) {
                let arena = arena_bits(bridge.optimizer.param(name).unwrap());
                assert_eq!(after, &arena, "{name}, step {step}");
                assert_ne!(after, before, "{name} did not move in step {step}");
            }
        }
        // A clone taken before the steps keeps its parameters.
        assert_eq!(readback(&first, None), initial);
    }

    #[test]
    fn the_next_forward_pass_uses_the_new_parameters() {
        let gpu = gpu();
        let device = gpu.burn.clone().autodiff();
        let model = Mlp::new(&[5, 7, 3], 2, &device);
        let before = tensor_bits(model.forward(pictures(4, 5)));
        let mut bridge = Bridge::new(gpu, &model, recipe()).unwrap();
        let gradients = gradients(&model);
        let model = bridge.step(model, gradients).unwrap();
        let after = tensor_bits(model.forward(pictures(4, 5)));
        assert_ne!(after, before);

        // A model that was given the arena's values by the host.
        struct Load<'a>(&'a GpuOptimizer, Vec<String>);
        impl ModuleMapper for Load<'_> {
            fn enter_module(&mut self, name: &str, _: &str) {
                self.1.push(name.into());
            }

            fn exit_module(&mut self, _: &str, _: &str) {
                self.1.pop();
            }

            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let values = self.0.read_param_blocking(&self.1.join(".")).unwrap();
                param.map(|old| {
                    let data = TensorData::new(values, old.dims());
                    Tensor::from_data(data, &old.device()).require_grad()
                })
            }
        }
        let other = Mlp::new(&[5, 7, 3], 3, &device);
        let other = other.map(&mut Load(&bridge.optimizer, Vec::new()));
        assert_eq!(tensor_bits(other.forward(pictures(4, 5))), after);
    }

    #[test]
    fn a_tensor_within_a_page_is_its_own_range() {
        let device = &gpu().burn;
        let tensors: Vec<_> =
            (0..6).map(|i| Tensor::<1>::from_data([i as f32, 10.0 + i as f32, -1.0], device)).collect();
        let buffers: Vec<_> =
            tensors.iter().map(|t| TensorBuffer::new("t".into(), t.clone()).unwrap()).collect();
        let shared = |a: &TensorBuffer, b: &TensorBuffer| {
            a.range.buffer == b.range.buffer && a.range.offset != b.range.offset
        };
        let pairs = buffers.windows(2).filter(|w| shared(&w[0], &w[1])).count();
        assert!(pairs > 0, "no two tensors share a page: this test shows nothing");
        for (index, buffer) in buffers.iter().enumerate() {
            let expected = [index as f32, 10.0 + index as f32, -1.0].map(f32::to_bits);
            let range = &buffer.range;
            assert_eq!(bits(&range.buffer, range.offset, 12), expected);
        }
    }

    #[test]
    fn a_transposed_tensor_is_copied_in_row_major_order() {
        let tensor = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &gpu().burn).transpose();
        let error = TensorBuffer::new("t".into(), tensor.clone()).err();
        assert!(format!("{:#}", error.unwrap()).contains("strides"));
        let buffer = TensorBuffer::dense("t".into(), tensor).unwrap();
        assert_eq!(buffer.shape, [3, 2]);
        assert_eq!(
            bits(&buffer.range.buffer, buffer.range.offset, 24),
            [1f32, 4.0, 2.0, 5.0, 3.0, 6.0].map(f32::to_bits)
        );
    }

    #[test]
    fn a_parameter_without_a_gradient_is_named() {
        #[derive(Module, Debug)]
        struct Pair {
            used: Param<Tensor<1>>,
            idle: Param<Tensor<1>>,
        }
        let device = gpu().burn.clone().autodiff();
        let ones = || Param::from_tensor(Tensor::<1>::ones([3], &device));
        let pair = Pair { used: ones(), idle: ones() };
        let mut bridge = Bridge::new(gpu(), &pair, recipe()).unwrap();
        let gradients = pair.used.val().sum().backward();
        let error = bridge.step(pair, gradients).unwrap_err();
        assert_eq!(error.to_string(), "idle has no gradient");
    }
}
