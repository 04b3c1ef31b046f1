//! The same recipes in burn-train's `Learner`, with its metrics, learning rate schedule and checkpoints.
//!
//! `cargo run --release -p wgpu-optim-burn --example learner -- mgup-adamw`

use std::path::PathBuf;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::ModuleOptimizer;
use burn::tensor::{Device, Int, Tensor, TensorData, activation::gelu};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::renderer::CliMetricsRenderer;
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use clap::Parser;
use wgpu_optim::Recipe;
use wgpu_optim_burn::{Gpu, RecipeOptimizer};

/// Trains a classifier of spiral arms with burn-train.
#[derive(Parser)]
struct Arguments {
    /// The optimizer: adamw, lion, mgup-adamw, cautious-lion, …
    #[arg(default_value = "mgup-adamw")]
    recipe: Recipe,
    /// Passes over the points.
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Folder for logs and checkpoints. Default: `wgpu-optim-learner` in the temporary folder.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Module, Debug)]
struct Classifier {
    first: Linear,
    second: Linear,
    last: Linear,
}

impl Classifier {
    fn new(device: &Device) -> Self {
        Self {
            first: LinearConfig::new(2, 64).init(device),
            second: LinearConfig::new(64, 64).init(device),
            last: LinearConfig::new(64, 2).init(device),
        }
    }

    fn classify(&self, batch: Batch) -> ClassificationOutput {
        let hidden = gelu(self.second.forward(gelu(self.first.forward(batch.points))));
        let logits = self.last.forward(hidden);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        ClassificationOutput::new(loss.forward(logits.clone(), batch.arms.clone()), logits, batch.arms)
    }
}

impl TrainStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Classifier {
    type Input = Batch;
    type Output = ClassificationOutput;

    fn step(&self, batch: Batch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// A point, and the arm that it lies on.
#[derive(Debug, Clone)]
struct Point {
    place: [f32; 2],
    arm: i64,
}

/// Points (n, 2) and their arms (n).
#[derive(Debug, Clone)]
struct Batch {
    points: Tensor<2>,
    arms: Tensor<1, Int>,
}

#[derive(Clone)]
struct Batches;

impl Batcher<Point, Batch> for Batches {
    fn batch(&self, items: Vec<Point>, device: &Device) -> Batch {
        let n = items.len();
        let places: Vec<f32> = items.iter().flat_map(|point| point.place).collect();
        let arms: Vec<i64> = items.iter().map(|point| point.arm).collect();
        Batch {
            points: Tensor::from_data(TensorData::new(places, [n, 2]), device),
            arms: Tensor::from_data(TensorData::new(arms, [n]), device),
        }
    }
}

/// Every `step`-th of the points on two spiral arms, beginning with `first`.
fn spiral(first: usize, step: usize) -> Vec<Point> {
    let total = 2048;
    let point = |i: usize| {
        let (arm, along) = ((i / step % 2) as i64, i as f32 / total as f32);
        let angle = 7.0 * along + std::f32::consts::PI * arm as f32;
        Point { place: [along * angle.cos(), along * angle.sin()], arm }
    };
    (first..total).step_by(step).map(point).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let gpu = Gpu::open()?;
    println!("{}, {}", gpu.adapter, arguments.recipe);
    let device = gpu.device.clone().autodiff();
    device.seed(0);
    let out = arguments.out.unwrap_or_else(|| std::env::temp_dir().join("wgpu-optim-learner"));

    let train = DataLoaderBuilder::new(Batches)
        .batch_size(64)
        .shuffle(0)
        .set_device(device.clone())
        .build(InMemDataset::new(spiral(0, 2)));
    let valid = DataLoaderBuilder::new(Batches)
        .batch_size(64)
        .set_device(gpu.device.clone())
        .build(InMemDataset::new(spiral(1, 8)));
    let steps = arguments.epochs * 16;
    let schedule = CosineAnnealingLrSchedulerConfig::new(5e-3, steps).init()?;
    let optim = ModuleOptimizer::from(RecipeOptimizer::new(&gpu, arguments.recipe));
    let learner = Learner::new(Classifier::new(&device), optim, schedule);
    let result = SupervisedTraining::new(&out, train, valid)
        .metrics((AccuracyMetric::new(), LossMetric::new()))
        .with_default_checkpointers()
        .renderer(Box::new(CliMetricsRenderer::new()))
        .num_epochs(arguments.epochs)
        .summary()
        .launch(learner);

    let all = Batches.batch(spiral(1, 8), &gpu.device);
    let arms = all.arms.clone();
    let answers: Tensor<1, Int> = result.model.classify(all).output.argmax(1).squeeze_dim(1);
    let right = answers.equal(arms).float().mean().into_scalar::<f32>();
    println!("{:.1} % right; logs and checkpoints in {}", 100.0 * right, out.display());
    if right < 0.9 {
        return Err("it did not learn the spiral".into());
    }
    Ok(())
}
