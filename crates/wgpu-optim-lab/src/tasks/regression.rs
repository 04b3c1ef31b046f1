//! A network that learns a function: a sum of waves over points of a cube, with noise.

use anyhow::{Result, ensure};
use burn::module::{Module, ParamGroup};
use burn::nn::Linear;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

use super::layers::biased;
use crate::task::{Held, Rng, Task};

/// Waves of the function.
const WAVES: usize = 8;
/// Points of a held-out set.
const HELD_OUT: usize = 1024;

/// Settings of the regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegressionConfig {
    /// The task's name in the report. Default: `regression`.
    pub name: Option<String>,
    /// Steps of a run. Default 500.
    pub steps: usize,
    /// Points per step. Default 64.
    pub batch: usize,
    /// Dimensions of a point. Default 8.
    pub dimensions: usize,
    /// Units of the two hidden layers. Default 64.
    pub width: usize,
    /// Deviation of the noise on the values of a batch; those of held-out sets have none. Default 0.1.
    pub noise: f64,
}

impl Default for RegressionConfig {
    fn default() -> Self {
        Self { name: None, steps: 500, batch: 64, dimensions: 8, width: 64, noise: 0.1 }
    }
}

impl RegressionConfig {
    pub(super) fn validate(&self) -> Result<()> {
        for (name, value) in [("batch", self.batch), ("dimensions", self.dimensions), ("width", self.width)] {
            ensure!(value >= 1, "`{name}` is 0; expected at least 1");
        }
        ensure!(self.noise >= 0.0 && self.noise.is_finite(), "`noise` is {}; expected 0 or more", self.noise);
        Ok(())
    }
}

/// The model.
#[derive(Module, Debug)]
pub struct Network {
    hidden: Vec<Linear>,
    head: Linear,
}

impl Network {
    fn forward(&self, points: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.hidden.iter().fold(points, |x, layer| silu(layer.forward(x))))
    }
}

/// The task.
pub(crate) struct Regression {
    config: RegressionConfig,
    /// The direction and the phase of each wave.
    waves: Vec<(Vec<f64>, f64)>,
}

impl Regression {
    pub(crate) fn new(config: &RegressionConfig) -> Self {
        let mut rng = Rng::seed_from_u64(0);
        let mut wave = || {
            (
                (0..config.dimensions).map(|_| rng.random_range(-2.0..2.0)).collect(),
                rng.random_range(0.0..std::f64::consts::TAU),
            )
        };
        Self { waves: (0..WAVES).map(|_| wave()).collect(), config: config.clone() }
    }

    /// Points from −1 to 1, and values of the function with this much noise.
    fn points(&self, rng: &mut Rng, count: usize, noise: f64, device: &Device) -> (Tensor<2>, Tensor<2>) {
        let (mut points, mut values) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let point: Vec<f64> = (0..self.config.dimensions).map(|_| rng.random_range(-1.0..1.0)).collect();
            let wave = |(direction, phase): &(Vec<f64>, f64)| {
                (phase + direction.iter().zip(&point).map(|(a, b)| a * b).sum::<f64>()).sin()
            };
            let value = self.waves.iter().map(wave).sum::<f64>() / (WAVES as f64 / 2.0).sqrt();
            // Uniform noise of that deviation.
            values.push((value + noise * 3f64.sqrt() * rng.random_range(-1.0..1.0)) as f32);
            points.extend(point.into_iter().map(|value| value as f32));
        }
        let points = TensorData::new(points, [count, self.config.dimensions]);
        (Tensor::from_data(points, device), Tensor::from_data(TensorData::new(values, [count, 1]), device))
    }
}

impl Task for Regression {
    type Model = Network;
    type Batch = (Tensor<2>, Tensor<2>);

    fn data(&self) -> String {
        format!("{WAVES} waves in {} dimensions", self.config.dimensions)
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Network {
        let RegressionConfig { dimensions, width, .. } = self.config;
        let hidden = vec![biased(rng, dimensions, width, device), biased(rng, width, width, device)];
        Network { hidden, head: biased(rng, width, 1, device) }
    }

    fn batch(&self, rng: &mut Rng, device: &Device) -> Self::Batch {
        self.points(rng, self.config.batch, self.config.noise, device)
    }

    fn loss(&self, model: &Network, (points, values): &Self::Batch) -> Tensor<1> {
        (model.forward(points.clone()) - values.clone()).square().mean()
    }

    fn held_out(&self, held: Held, device: &Device) -> Vec<Self::Batch> {
        let seed = if held == Held::Tuning { 1 } else { 2 };
        vec![self.points(&mut Rng::seed_from_u64(seed), HELD_OUT, 0.0, device)]
    }

    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        vec![(ParamGroup::from_predicate("head").into(), MatrixLayout::Fallback)]
    }
}
