//! Something to learn, as the lab sees it.

use std::path::PathBuf;

use anyhow::Result;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rand::rngs::Xoshiro256PlusPlus;
use wgpu_optim::MatrixLayout;
use wgpu_optim_burn::Select;

/// The generator of initial parameters and batches. Its algorithm is fixed: a seed gives the same numbers on every machine.
pub type Rng = Xoshiro256PlusPlus;

/// A set that models do not learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// That learning rates are chosen by.
    Tuning,
    /// That optimizers are compared on.
    Final,
}

/// Something to learn. `examples/own_task.rs` defines one.
pub trait Task {
    /// The model.
    type Model: Module + Send + Sync + 'static;
    /// What a step learns from.
    type Batch;

    /// A description of the data, for people. It should tell different data apart.
    fn data(&self) -> String;

    /// Prepares the task before its first run, for example by pre-training. The lab calls it before each run. `progress` takes the number of
    /// steps done and of all steps, and returns whether to go on; if not, no run follows. Default: does nothing.
    ///
    /// # Errors
    /// If it fails.
    fn prepare(&self, _device: &Device, _progress: &dyn Fn(usize, usize) -> bool) -> Result<()> {
        Ok(())
    }

    /// A model with random parameters.
    fn model(&self, rng: &mut Rng, device: &Device) -> Self::Model;

    /// A random batch of the training set.
    fn batch(&self, rng: &mut Rng, device: &Device) -> Self::Batch;

    /// The mean loss of a batch, of shape (1).
    fn loss(&self, model: &Self::Model, batch: &Self::Batch) -> Tensor<1>;

    /// All of a held-out set, as batches of equal size.
    fn held_out(&self, held: Held, device: &Device) -> Vec<Self::Batch>;

    /// The share of right answers in a batch, of shape (1), if the task has answers. Default: it has none.
    fn accuracy(&self, _model: &Self::Model, _batch: &Self::Batch) -> Option<Tensor<1>> {
        None
    }

    /// How matrix bases read parameters. Default: every parameter of rank 2 is a matrix of (inputs, outputs).
    fn layouts(&self) -> Vec<(Select, MatrixLayout)> {
        Vec::new()
    }

    /// The two parameters of a model that has no others, to draw their path. Default: none.
    fn point(&self, _model: &Self::Model) -> Option<Tensor<1>> {
        None
    }
}

/// Where data of tasks lie, as the command line says.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Directory of pictures.
    pub pictures: Option<PathBuf>,
    /// File of text.
    pub text: Option<PathBuf>,
    /// CSV file of sentences, with the columns `text` and `label`.
    pub sentences: Option<PathBuf>,
}
