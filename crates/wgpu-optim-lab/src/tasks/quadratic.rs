//! A quadratic function of two variables, x² / 4 + 4 y², from points of a circle. It has no noise, and a path that can be drawn.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::task::{Held, Rng, Task};

/// Settings of the quadratic function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuadraticConfig {
    /// The task's name in the report. Default: `quadratic`.
    pub name: Option<String>,
    /// Steps of a run. Default 200.
    pub steps: usize,
}

impl Default for QuadraticConfig {
    fn default() -> Self {
        Self { name: None, steps: 200 }
    }
}

/// A point.
#[derive(Module, Debug)]
pub struct Point {
    point: Param<Tensor<1>>,
}

/// The task.
pub(crate) struct Quadratic;

impl Quadratic {
    pub(crate) fn new(_: &QuadraticConfig) -> Self {
        Self
    }
}

impl Task for Quadratic {
    type Model = Point;
    type Batch = Tensor<1>;

    fn data(&self) -> String {
        "x² / 4 + 4 y²".to_owned()
    }

    fn model(&self, rng: &mut Rng, device: &Device) -> Point {
        let angle = rng.random_range(0.0..std::f32::consts::TAU);
        let point = TensorData::new(vec![angle.cos() * 2f32.sqrt(), angle.sin() * 2f32.sqrt()], [2]);
        Point { point: Param::from_tensor(Tensor::from_data(point, device)) }
    }

    fn batch(&self, _: &mut Rng, device: &Device) -> Tensor<1> {
        Tensor::from_floats([0.25, 4.0], device)
    }

    fn loss(&self, model: &Point, scales: &Tensor<1>) -> Tensor<1> {
        (model.point.val().square() * scales.clone()).sum()
    }

    fn held_out(&self, _: Held, device: &Device) -> Vec<Tensor<1>> {
        vec![Tensor::from_floats([0.25, 4.0], device)]
    }

    fn point(&self, model: &Point) -> Option<Tensor<1>> {
        Some(model.point.val())
    }
}
