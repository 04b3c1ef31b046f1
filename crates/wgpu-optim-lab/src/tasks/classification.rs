//! A classifier of pictures: a multi-layer perceptron, or convolutions.

use anyhow::{Result, ensure};
use burn::module::{Module, Param, ParamGroup};
use burn::nn::Linear;
use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::module::{avg_pool2d, conv2d};
use burn::tensor::ops::{AvgPoolOptions, ConvOptions};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

use super::layers::{biased, normal, zeros};
use super::pictures::Gallery;
use crate::task::{Held, Rng, Sources, Task};

/// What classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Two hidden layers.
    #[default]
    Mlp,
    /// Two convolutions of 3 × 3, each followed by a mean over 2 × 2.
    Cnn,
}

/// Settings of the classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassificationConfig {
    /// The task's name in the report. Default: `classification`.
    pub name: Option<String>,
    /// Steps of a run. Default 300.
    pub steps: usize,
    /// Pictures per step. Default 64.
    pub batch: usize,
    /// What classifies: `mlp` or `cnn`. Default `mlp`.
    pub network: Network,
    /// Hidden units, or channels of the first convolution; the second has twice as many. Default 128 for `mlp` and 16 for `cnn`.
    pub width: Option<usize>,
    /// Pictures of each held-out set. Default 1,024.
    pub held_out: usize,
}

impl Default for ClassificationConfig {
    fn default() -> Self {
        Self { name: None, steps: 300, batch: 64, network: Network::Mlp, width: None, held_out: 1024 }
    }
}

impl ClassificationConfig {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [("batch", self.batch), ("width", self.width()), ("held_out", self.held_out)] {
            ensure!(value >= 1, "`{name}` is 0; expected at least 1");
        }
        Ok(())
    }

    fn width(&self) -> usize {
        self.width.unwrap_or(if self.network == Network::Mlp { 128 } else { 16 })
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Classifier {
    convolutions: Vec<Convolution>,
    hidden: Vec<Linear>,
    head: Linear,
}

/// A convolution of 3 × 3 that keeps rows and columns.
#[derive(Module, Debug)]
pub struct Convolution {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
}

impl Classifier {
    /// Logits of pictures (pictures, channels, rows, columns).
    fn forward(&self, pictures: Tensor<4>) -> Tensor<2> {
        let x = self.convolutions.iter().fold(pictures, |x, layer| {
            let x = relu(conv2d(
                x,
                layer.weight.val(),
                Some(layer.bias.val()),
                ConvOptions::new([1, 1], [1, 1], [1, 1], 1),
            ));
            avg_pool2d(
                x,
                AvgPoolOptions {
                    kernel_size: [2, 2],
                    stride: [2, 2],
                    padding: [(0, 0); 2],
                    count_include_pad: true,
                    ceil_mode: false,
                },
            )
        });
        let x: Tensor<2> = x.flatten(1, 3);
        self.head.forward(self.hidden.iter().fold(x, |x, layer| relu(layer.forward(x))))
    }
}

/// The task.
pub(crate) struct Classification {
    config: ClassificationConfig,
    gallery: Gallery,
}

impl Classification {
    pub(crate) fn open(config: &ClassificationConfig, sources: &Sources) -> Result<Self> {
        Ok(Self { config: config.clone(), gallery: Gallery::open(sources)? })
    }

    fn tensors(&self, pictures: Vec<(Vec<f32>, u8)>, device: &Device) -> (Tensor<4>, Tensor<2, Int>) {
        let ([rows, columns, channels], count) = (self.gallery.shape(), pictures.len());
        let labels: Vec<i32> = pictures.iter().map(|(_, label)| i32::from(*label)).collect();
        let values: Vec<f32> = pictures.into_iter().flat_map(|(picture, _)| picture).collect();
        let pictures = TensorData::new(values, [count, channels, rows, columns]);
        (Tensor::from_data(pictures, device), Tensor::from_data(TensorData::new(labels, [count, 1]), device))
    }
}

impl Task for Classification {
    type Model = Classifier;
    type Batch = (Tensor<4>, Tensor<2, Int>);

    fn data(&self) -> String {
        self.gallery.name()
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Classifier {
        let (width, [rows, _, channels]) = (self.config.width(), self.gallery.shape());
        let convolution = |rng: &mut Rng, from: usize, to: usize| Convolution {
            weight: normal(rng, [to, from, 3, 3], (2.0 / (9 * from) as f64).sqrt(), device),
            bias: zeros([to], device),
        };
        let (convolutions, hidden, last) = match self.config.network {
            Network::Mlp => {
                let hidden =
                    vec![biased(rng, self.gallery.features(), width, device), biased(rng, width, width, device)];
                (Vec::new(), hidden, width)
            }
            Network::Cnn => {
                let convolutions = vec![convolution(rng, channels, width), convolution(rng, width, 2 * width)];
                (convolutions, Vec::new(), 2 * width * (rows / 4).pow(2))
            }
        };
        Classifier { convolutions, hidden, head: biased(rng, last, self.gallery.classes(), device) }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Self::Batch {
        self.tensors((0..self.config.batch).map(|_| self.gallery.any(rng)).collect(), device)
    }

    fn loss(&self, model: &Classifier, (pictures, labels): &Self::Batch) -> Tensor<1> {
        log_softmax(model.forward(pictures.clone()), 1).gather(1, labels.clone()).mean().neg()
    }

    fn accuracy(&self, model: &Classifier, (pictures, labels): &Self::Batch) -> Option<Tensor<1>> {
        Some(model.forward(pictures.clone()).argmax(1).equal(labels.clone()).float().mean())
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Self::Batch> {
        let pictures = self.gallery.held_out(held, self.config.held_out);
        let at_once = pictures.len().min(256);
        pictures.chunks_exact(at_once).map(|pictures| self.tensors(pictures.to_vec(), device)).collect()
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        // A convolution is a matrix of its outputs and all else.
        let convolutions = (Select::Rank(4), MatrixLayout::Flattened);
        vec![convolutions, (ParamGroup::from_predicate("head").into(), MatrixLayout::Fallback)]
    }
}
