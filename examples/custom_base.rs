//! A custom optimizer in WGSL: AdEMAMix (Pagliardini et al., ICLR 2025, arXiv 2409.03137), compared with AdamW.
//!
//! ```text
//! m₁ ← β₁ m₁ + (1−β₁) g ;  m₂ ← β₃ m₂ + (1−β₃) g ;  v ← β₂ v + (1−β₂) g²
//! u = (m₁ / (1−β₁ᵗ) + α m₂) / (√(v / (1−β₂ᵗ)) + ε) ;  θ ← θ − lr (λ θ + u)
//! ```
//!
//! `ademamix.wgsl` holds the WGSL. The closure below computes the same on the CPU, and the program first compares the GPU with it. Then a
//! small network fits a curve from noisy batches. The CPU computes the gradients. Run it with
//! `cargo run --release --example custom_base`.

use std::path::{Path, PathBuf};

use clap::Parser;
use indicatif::ProgressBar;
use plotters::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use wgpu_optim::base::CustomBase;
use wgpu_optim::verify::{Case, Runner};
use wgpu_optim::{GpuOptimizer, LrSchedule, ParamGroups, Recipe, TensorSpec, adapter, wgpu};

const TEXT: &str = include_str!("ademamix.wgsl");
const HIDDEN: usize = 64;
const BATCH: usize = 32;
/// Names and sizes of the parameters W, b and v of the network x → h = tanh(W x + b) → v·h.
const TENSORS: [(&str, usize); 3] = [("weight", HIDDEN), ("bias", HIDDEN), ("out", HIDDEN)];
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Trains a small network with a custom optimizer and with AdamW.
#[derive(Parser)]
struct Arguments {
    /// Steps of each run
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Runs of each optimizer, each with a different seed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Folder for `custom_base.svg`
    #[arg(long, default_value = "runs/custom_base")]
    out: PathBuf,
}

/// AdEMAMix with its CPU twin.
fn ademamix(lr: f64, warmup: f64) -> Result<CustomBase, wgpu_optim::Error> {
    let base = CustomBase::new(TEXT)?.lr(lr).scalar("warmup", warmup)?;
    Ok(base.twin(|state, g, s| {
        let share = (s["t"] / s["warmup"]).min(1.0);
        let beta3 = (1.0 / ((1.0 - share) / s["beta1"].ln() + share / s["beta3"].ln())).exp();
        state[0] = s["beta1"] * state[0] + s["one_minus_beta1"] * g;
        state[1] = beta3 * state[1] + (1.0 - beta3) * g;
        state[2] = s["beta2"] * state[2] + s["one_minus_beta2"] * g * g;
        let denominator = (state[2] / s["beta2_correction"]).sqrt() + s["eps"];
        (state[0] / s["beta1_correction"] + s["alpha"] * share * state[1]) / denominator
    }))
}

fn target(x: f32) -> f32 {
    (3.0 * x).sin() + 0.5 * (7.0 * x).cos()
}

/// The mean squared error of the network on these points, and its gradients.
fn gradients([weight, bias, out]: &[Vec<f32>; 3], points: &[(f32, f32)]) -> (f32, [Vec<f32>; 3]) {
    let (mut loss, mut all) = (0.0, [(); 3].map(|()| vec![0.0f32; HIDDEN]));
    let share = 1.0 / points.len() as f32;
    for &(x, wanted) in points {
        let hidden: Vec<f32> = weight.iter().zip(bias).map(|(w, b)| (w * x + b).tanh()).collect();
        let error = hidden.iter().zip(out).map(|(h, v)| h * v).sum::<f32>() - wanted;
        loss += share * error * error;
        for i in 0..HIDDEN {
            let back = 2.0 * share * error * out[i] * (1.0 - hidden[i] * hidden[i]);
            all[0][i] += back * x;
            all[1][i] += back;
            all[2][i] += 2.0 * share * error * hidden[i];
        }
    }
    (loss, all)
}

/// Trains the network, and returns the loss without noise after every 20 steps and after the last step.
fn train(
    (device, queue): (&wgpu::Device, &wgpu::Queue),
    recipe: Recipe,
    steps: u64,
    seed: u64,
) -> Result<Vec<f32>, wgpu_optim::Error> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let specs = TENSORS.map(|(name, numel)| TensorSpec::new(name, [numel]));
    let groups = ParamGroups::from(recipe).with_schedule(LrSchedule::cosine(steps, 0.0));
    let mut optimizer = GpuOptimizer::new_blocking(device, queue, &specs, groups)?;
    let scales = [6.0f32, 2.0, 0.1];
    let mut params = scales.map(|scale| (0..HIDDEN).map(|_| random.random_range(-scale..scale)).collect::<Vec<_>>());
    for ((name, _), values) in TENSORS.iter().zip(&params) {
        optimizer.write_param(name, values)?;
    }
    let exact: Vec<_> = (0..200).map(|i| i as f32 / 100.0 - 1.0).map(|x| (x, target(x))).collect();
    let mut losses = Vec::new();
    for step in 0..steps {
        let mut noisy = || {
            let x = random.random_range(-1.0..1.0f32);
            (x, target(x) + random.random_range(-1.0..1.0f32))
        };
        let batch: Vec<_> = (0..BATCH).map(|_| noisy()).collect();
        let (_, grads) = gradients(&params, &batch);
        for ((name, _), grad) in TENSORS.iter().zip(&grads) {
            optimizer.write_grad(name, grad)?;
        }
        optimizer.step()?;
        for ((name, _), values) in TENSORS.iter().zip(&mut params) {
            *values = optimizer.read_param_blocking(name)?;
        }
        if (step + 1) % 20 == 0 || step + 1 == steps {
            losses.push(gradients(&params, &exact).0);
        }
    }
    Ok(losses)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { steps, seeds, out } = Arguments::parse();
    let (_instance, found) = pollster::block_on(adapter::from_env())?;
    let (device, queue) = pollster::block_on(found.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("adapter: {}", adapter::describe(&found.get_info()));

    // Compare the GPU with the closure, as `wgpu-optim verify` does for built-in bases.
    let own = Recipe::from(ademamix(1e-2, 3.0)?).mgup();
    let case = Case::new("mgup-ademamix", own, [10_000], 5);
    let outcome = pollster::block_on(Runner::new(&device, &queue).run(&case, own))?;
    match outcome.failure {
        Some(failure) => return Err(format!("the GPU differs from the twin: {failure}").into()),
        None => println!("5 steps of 10,000 coordinates: at most {:.1e} from the twin", outcome.max_error),
    }

    // A short run needs a smaller β₃ and a smaller α than the defaults.
    let ademamix = Recipe::from(ademamix(3e-3, steps as f64)?.scalar("beta3", 0.99)?.scalar("alpha", 2.0)?);
    let recipes = [Recipe::adamw(3e-3), Recipe::adamw(3e-3).mgup(), ademamix, ademamix.mgup()];
    let progress = ProgressBar::new(recipes.len() as u64 * seeds);
    let mut curves: Vec<(String, Vec<f32>)> = Vec::new();
    for recipe in recipes {
        let mut sum: Vec<f32> = Vec::new();
        for seed in 0..seeds {
            let losses = train((&device, &queue), recipe, steps, seed)?;
            sum.resize(losses.len(), 0.0);
            sum.iter_mut().zip(losses).for_each(|(sum, loss)| *sum += loss / seeds as f32);
            progress.inc(1);
        }
        curves.push((recipe.name(), sum));
    }
    progress.finish_and_clear();
    println!("loss without noise, mean over {seeds} seeds");
    println!("{:<16} {:>12} {:>12} {:>12}", "", "first tenth", "half way", "end");
    for (name, losses) in &curves {
        let at = |share: f64| losses[((losses.len() - 1) as f64 * share) as usize];
        println!("{name:<16} {:>12.5} {:>12.5} {:>12.5}", at(0.1), at(0.5), at(1.0));
    }
    std::fs::create_dir_all(&out)?;
    let path = out.join("custom_base.svg");
    plot(&path, &curves, steps)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn plot(path: &Path, curves: &[(String, Vec<f32>)], steps: u64) -> Result<(), Box<dyn std::error::Error>> {
    let all = curves.iter().flat_map(|(_, losses)| losses).copied().filter(|loss| loss.is_finite());
    let (low, high) = all.fold((f32::MAX, f32::MIN), |(low, high), loss| (low.min(loss), high.max(loss)));
    let root = SVGBackend::new(path, (820, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption("A curve fitted from noisy batches", ("sans-serif", 18))
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0..steps, (0.8 * low..1.2 * high).log_scale())?;
    let mesh = |value: &f32| format!("{value:.3}");
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(228, 228, 228))
        .x_desc("step")
        .y_desc("loss without noise")
        .y_label_formatter(&mesh)
        .y_labels(4)
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((name, losses), color) in curves.iter().zip(COLORS) {
        let points = losses.iter().enumerate().map(|(i, &loss)| ((20 * (i as u64 + 1)).min(steps), loss));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
