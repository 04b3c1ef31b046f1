//! The classifier: a multi-layer perceptron with ReLU, as a Burn module.

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::loss::cross_entropy_with_logits;
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Tensor, TensorData, activation::relu};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use wgpu_optim::{MatrixLayout, Recipe};
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer, Select};
use wgpu_optim_cache::PipelineCache;

/// A linear layer whose weight is (out, in).
///
/// Burn's own `Linear` keeps (in, out). Optimizers that treat a weight as a matrix take its rows for the
/// outputs, and so do the checkpoints of most other programs.
#[derive(Module, Debug)]
pub struct Dense {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Dense {
    fn forward(&self, input: Tensor<2>) -> Tensor<2> {
        linear(input, self.weight.val().transpose(), Some(self.bias.val()))
    }
}

/// A multi-layer perceptron: linear layers with ReLU between them.
#[derive(Module, Debug)]
pub struct Mlp {
    layers: Vec<Dense>,
}

impl Mlp {
    /// A network of the given widths, from the inputs to the classes.
    ///
    /// Weights are Kaiming-uniform from a generator of a fixed algorithm on the host, biases are 0: the
    /// same seed gives the same parameters on every machine.
    pub fn new(widths: &[usize], seed: u64, device: &Device) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(index, pair)| {
                let (inputs, outputs) = (pair[0], pair[1]);
                let last = index + 2 == widths.len();
                let gain: f32 = if last { 1.0 } else { 2.0 };
                let bound = (3.0 * gain / inputs as f32).sqrt();
                let weight: Vec<f32> = (0..outputs * inputs).map(|_| rng.random_range(-bound..bound)).collect();
                let weight = TensorData::new(weight, [outputs, inputs]);
                let bias = TensorData::new(vec![0f32; outputs], [outputs]);
                Dense {
                    weight: Param::from_tensor(Tensor::from_data(weight, device)),
                    bias: Param::from_tensor(Tensor::from_data(bias, device)),
                }
            })
            .collect();
        Self { layers }
    }

    /// The same with all parameters in this format.
    pub fn cast(self, dtype: DType) -> Self {
        struct Cast(DType);
        impl ModuleMapper for Cast {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let (id, tensor, mapper) = param.consume();
                let tensor = Tensor::from_inner(tensor.inner().cast(self.0)).require_grad();
                Param::from_mapped_value(id, tensor, mapper)
            }
        }
        if dtype == DType::F32 { self } else { self.map(&mut Cast(dtype)) }
    }

    /// An optimizer for it. For matrix bases, all weights are matrices of (out, in), except the last, whose rows are classes.
    pub fn optimizer(&self, gpu: &Gpu, recipe: Recipe, cache: Option<&PipelineCache>) -> GpuModuleOptimizer {
        let cache = cache.map(|cache| cache.handle().clone());
        let head = ParamGroup::from_predicate(format!("layers.{}.", self.layers.len() - 1));
        GpuModuleOptimizer::new(gpu, recipe)
            .with_layout(Select::Rank(2), MatrixLayout::OutIn)
            .with_layout(head, MatrixLayout::Fallback)
            .with_settings(move |groups| match &cache {
                Some(cache) => groups.with_pipeline_cache(cache),
                None => groups,
            })
    }

    /// The logits of a batch of pictures, (pictures, classes).
    pub fn forward(&self, pictures: Tensor<2>) -> Tensor<2> {
        let last = self.layers.len() - 1;
        self.layers.iter().enumerate().fold(pictures, |x, (index, layer)| {
            let y = layer.forward(x);
            if index < last { relu(y) } else { y }
        })
    }

    /// The mean cross-entropy of a batch against one-hot targets, (1), in f32.
    pub fn loss(&self, pictures: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        cross_entropy_with_logits(self.forward(pictures).cast(DType::F32), targets)
    }
}
