//! What the rule for ties does to rows without gradients: embeddings of tokens that a step does not use, and idle experts.
//!
//! A zero gradient has the score 0, wherever the direction points. MGUP selects exactly K coordinates, ties by the lowest index. If fewer than
//! K scores are positive, coordinates without gradients are selected from the front of the tensor. Their direction is the momentum of earlier
//! steps, so that the front moves on by 1/τ and the back by τ.

use anyhow::{Context, Result};
use rand::{RngExt, SeedableRng};
use wgpu_optim::{GpuOptimizer, Recipe, TensorSpec, wgpu};
use wgpu_optim_burn::Gpu;

use crate::report::{Table, markdown};
use crate::task::Rng;

/// Numbers per row.
const WIDTH: usize = 16;
/// Steps of an experiment.
pub const STEPS: usize = 200;

/// Rows of which a few have gradients in each step. All of them are alike: only their place differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// A description for people.
    pub name: &'static str,
    /// Tensors of the model.
    pub tensors: usize,
    /// Rows per tensor.
    pub rows: usize,
    /// Neighbors that have gradients together.
    pub together: usize,
    /// Groups of neighbors with gradients in each step, over all tensors.
    pub active: usize,
}

/// An embedding table, and experts in one tensor or in a tensor each.
pub const LAYOUTS: [Layout; 3] = [
    Layout { name: "embedding, 5 % of 2,048 rows per step", tensors: 1, rows: 2048, together: 1, active: 102 },
    Layout { name: "2 of 16 experts per step, one tensor", tensors: 1, rows: 1024, together: 64, active: 2 },
    Layout { name: "2 of 16 experts per step, a tensor each", tensors: 16, rows: 64, together: 64, active: 2 },
];

/// What is compared.
const RECIPES: [&str; 6] =
    ["adamw", "cautious-adamw", "mgup-adamw", "mgup-adamw-random", "cautious-mgup-adamw", "mgup-lion"];

/// How far rows have moved, by their place in their tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// The root mean square of the distances of all coordinates in the first quarter of each tensor, in learning rates.
    pub first: f64,
    /// The same for the last quarter.
    pub last: f64,
}

/// Steps the rows of a layout, whose gradients are normal noise around a mean, and measures how far they move.
///
/// # Errors
/// If the recipe cannot step them, or the device fails.
pub fn drift(device: &wgpu::Device, queue: &wgpu::Queue, recipe: &Recipe, layout: &Layout) -> Result<Drift> {
    let numel = layout.rows * WIDTH;
    let names: Vec<_> = (0..layout.tensors).map(|at| format!("rows {at}")).collect();
    let specs: Vec<_> = names.iter().map(|name| TensorSpec::new(name, [layout.rows, WIDTH])).collect();
    let mut optimizer = GpuOptimizer::new_blocking(device, queue, &specs, *recipe)?;
    let mut rng = Rng::seed_from_u64(0);
    // Each coordinate has a gradient that does not change, of either sign, and noise.
    let mean: Vec<f32> = (0..layout.tensors * numel).map(|_| if rng.random_bool(0.5) { 0.5 } else { -0.5 }).collect();
    for name in &names {
        optimizer.write_param(name, &vec![0.0; numel])?;
    }
    let groups = layout.tensors * layout.rows / layout.together;
    for _ in 0..STEPS {
        let mut grads = vec![0.0; layout.tensors * numel];
        for _ in 0..layout.active {
            let size = layout.together * WIDTH;
            let from = rng.random_range(0..groups) * size;
            for at in from..from + size {
                grads[at] = mean[at] + rng.random_range(-1.0..1.0f32);
            }
        }
        for (name, grads) in names.iter().zip(grads.chunks(numel)) {
            optimizer.write_grad(name, grads)?;
        }
        optimizer.step()?;
    }
    let mut sums = [0.0; 2];
    for name in &names {
        let read = optimizer.read_param(name)?;
        device.poll(wgpu::PollType::wait_indefinitely()).context("the device is gone")?;
        let values = pollster::block_on(read)?;
        for (sum, part) in sums.iter_mut().zip([&values[..numel / 4], &values[numel - numel / 4..]]) {
            *sum += part.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
        }
    }
    let count = (layout.tensors * (numel / 4)) as f64;
    let [first, last] = sums.map(|sum| (sum / count).sqrt() / recipe.lr());
    Ok(Drift { first, last })
}

/// The drift of a layout's rows by optimizer, as Markdown.
///
/// # Errors
/// If the device fails.
pub fn table(gpu: &Gpu, layout: &Layout) -> Result<String> {
    let row = |name: &str| -> Result<Vec<String>> {
        let Drift { first, last } = drift(&gpu.wgpu_device, &gpu.queue, &name.parse()?, layout)?;
        Ok(vec![name.to_owned(), format!("{first:.1}"), format!("{last:.1}"), format!("{:.2}", first / last)])
    };
    Ok(markdown(&Table {
        heading: String::new(),
        columns: vec!["optimizer", "first quarter", "last quarter", "quotient"],
        rows: RECIPES.into_iter().map(row).collect::<Result<_>>()?,
        remark: String::new(),
    }))
}
