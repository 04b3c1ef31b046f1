//! Parameters from a generator on the host, and the layers that models share.

use burn::module::{Module, Param};
use burn::nn::{Linear, RmsNorm, RmsNormConfig, RotaryEncoding, SwiGlu};
use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use rand::RngExt;

use crate::task::Rng;

/// Normal values of mean 0.
pub fn normal<const D: usize>(rng: &mut Rng, shape: [usize; D], deviation: f64, device: &Device) -> Param<Tensor<D>> {
    let next = |_| {
        // Box and Muller's.
        let (a, b): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        (deviation * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
    };
    param((0..shape.iter().product()).map(next).collect(), shape, device)
}

/// Uniform values from −bound to bound.
pub fn uniform<const D: usize>(rng: &mut Rng, shape: [usize; D], bound: f32, device: &Device) -> Param<Tensor<D>> {
    param((0..shape.iter().product()).map(|_| rng.random_range(-bound..bound)).collect(), shape, device)
}

/// Zeros.
pub fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    param(vec![0.0; shape.iter().product()], shape, device)
}

/// Ones.
pub fn ones<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    param(vec![1.0; shape.iter().product()], shape, device)
}

fn param<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A linear layer without a bias, (inputs, outputs), whose outputs have about the variance of its inputs.
pub(super) fn linear(rng: &mut Rng, inputs: usize, outputs: usize, device: &Device) -> Linear {
    Linear { weight: normal(rng, [inputs, outputs], (inputs as f64).powf(-0.5), device), bias: None }
}

/// The same with a bias of zeros.
pub(super) fn biased(rng: &mut Rng, inputs: usize, outputs: usize, device: &Device) -> Linear {
    Linear { bias: Some(zeros([outputs], device)), ..linear(rng, inputs, outputs, device) }
}

/// A block of a transformer: attention, and a gated network for each position; both on normalized inputs, both added to them.
#[derive(Module, Debug)]
pub(crate) struct Block {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    network_norm: RmsNorm,
    gate: SwiGlu,
    down: Linear,
    heads: usize,
}

impl Block {
    /// For positions of `width` numbers. The network is 8/3 as wide, rounded up to a multiple of 8. What is added to the inputs begins
    /// small: by √(1 / (2 · depth)).
    pub(super) fn new(rng: &mut Rng, width: usize, heads: usize, depth: usize, device: &Device) -> Self {
        let inner = (8 * width).div_ceil(3).next_multiple_of(8);
        let norm = || RmsNormConfig::new(width).init(device);
        let small = |rng: &mut Rng, inputs: usize| {
            let deviation = ((inputs * 2 * depth) as f64).powf(-0.5);
            Linear { weight: normal(rng, [inputs, width], deviation, device), bias: None }
        };
        Self {
            attention_norm: norm(),
            query: linear(rng, width, width, device),
            key: linear(rng, width, width, device),
            value: linear(rng, width, width, device),
            output: small(rng, width),
            network_norm: norm(),
            gate: SwiGlu {
                linear_inner: linear(rng, width, inner, device),
                linear_outer: linear(rng, width, inner, device),
            },
            down: small(rng, inner),
            heads,
        }
    }

    /// (batch · positions, width) to the same shape. `rotary` turns queries and keys by their positions; `hidden` marks what a position does
    /// not attend to, (positions, positions).
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        positions: usize,
        rotary: Option<&RotaryEncoding>,
        hidden: Option<&Tensor<2, Bool>>,
    ) -> Tensor<2> {
        let [rows, width] = x.dims();
        let (batch, heads, of_head) = (rows / positions, self.heads, width / self.heads);
        let normed = self.attention_norm.forward(x.clone());
        let split =
            |layer: &Linear| layer.forward(normed.clone()).reshape([batch, positions, heads, of_head]).swap_dims(1, 2);
        let turned = |x: Tensor<4>| rotary.map_or(x.clone(), |rotary| rotary.forward(x));
        let (query, key, value) = (turned(split(&self.query)), turned(split(&self.key)), split(&self.value));
        let mut scores = query.matmul(key.swap_dims(2, 3)) * (of_head as f64).powf(-0.5);
        if let Some(hidden) = hidden {
            let hidden = hidden.clone().reshape([1, 1, positions, positions]);
            scores = scores.mask_fill(hidden.expand([batch, heads, positions, positions]), -1e9);
        }
        let mixed = softmax(scores, 3).matmul(value).swap_dims(1, 2).reshape([rows, width]);
        let x = x + self.output.forward(mixed);
        let normed = self.network_norm.forward(x.clone());
        x + self.down.forward(self.gate.forward(normed))
    }
}
