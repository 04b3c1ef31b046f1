//! A training loop: a small network learns to tell the two arms of a spiral apart.
//!
//! `cargo run --release -p wgpu-optim-burn --example train -- mgup-adamw`

use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::gelu};
use clap::Parser;
use wgpu_optim::Recipe;
use wgpu_optim_burn::{Gpu, GpuModuleOptimizer};

/// Trains a classifier of spiral arms.
#[derive(Parser)]
struct Arguments {
    /// The optimizer: adamw, lion, mgup-adamw, cautious-lion, …
    #[arg(default_value = "mgup-adamw")]
    recipe: Recipe,
    /// Optimizer steps.
    #[arg(long, default_value_t = 500)]
    steps: usize,
    /// Learning rate.
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
}

#[derive(Module, Debug)]
struct Classifier {
    layers: Vec<Linear>,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        let widths = [2, 64, 64, 2];
        let layers = widths.windows(2).map(|w| LinearConfig::new(w[0], w[1]).init(device)).collect();
        Self { layers }
    }

    fn forward(&self, points: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().expect("there are layers");
        last.forward(hidden.iter().fold(points, |x, layer| gelu(layer.forward(x))))
    }
}

/// Points on two arms (n, 2), and their arms (n).
fn spiral(n: usize, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let point = |i: usize| {
        let (arm, along) = ((i % 2) as f32, i as f32 / n as f32);
        let angle = 7.0 * along + std::f32::consts::PI * arm;
        [along * angle.cos(), along * angle.sin()]
    };
    let points: Vec<f32> = (0..n).flat_map(point).collect();
    let arms: Vec<i64> = (0..n).map(|i| (i % 2) as i64).collect();
    (Tensor::from_data(TensorData::new(points, [n, 2]), device), Tensor::from_data(TensorData::new(arms, [n]), device))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let gpu = Gpu::open()?;
    println!("{}, {}", gpu.adapter, arguments.recipe);
    let device = gpu.device.clone().autodiff();
    device.seed(0);
    let mut model = Classifier::new(&device);
    let mut optim = GpuModuleOptimizer::new(&gpu, arguments.recipe);
    let (points, arms) = spiral(512, &device);
    let loss_of = CrossEntropyLossConfig::new().init(&device);
    let start = Instant::now();
    let mut last = f32::NAN;
    for step in 0..arguments.steps {
        let loss = loss_of.forward(model.forward(points.clone()), arms.clone());
        if step % 50 == 0 || step + 1 == arguments.steps {
            last = loss.clone().into_scalar();
            println!("step {step:4}  loss {last:.4}  {:.1} s", start.elapsed().as_secs_f64());
        }
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optim.try_step(arguments.lr, model, grads)?;
    }
    if last.is_nan() || last > 0.3 {
        return Err(format!("the loss is still {last}").into());
    }
    Ok(())
}
