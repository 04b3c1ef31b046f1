//! The counterexample of the MGUP poster: a one-dimensional sum of functions on which Cautious-Adam walks away from
//! the optimum, and Adam and MGUP-Adam do not.
//!
//! ```text
//! f = Σ f_i, n = 10, x₀ = −0.5, optimum −2
//! f₀ = n x   (x ≥ −1),   n/2 (x+2)² − 3n/2   (x < −1)
//! f_i = −x   (x ≥ −1),   −½ (x+2)² + 3/2     (x < −1)     for i > 0
//! ```
//!
//! Each step draws one i uniformly. lr 0.1, betas (0.9, 0.999). With one coordinate, MGUP selects ⌊τ·1⌋ = 0 of them:
//! its factor is γ in every step. Run it with `cargo run --release --example counterexample`.

use std::path::PathBuf;

use clap::Parser;
use plotters::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use wgpu_optim::{Recipe, reference};

const N: usize = 10;
const OPTIMUM: f64 = -2.0;
/// The steps that the table reports, where a run is long enough.
const MILESTONES: [usize; 2] = [900, 5000];
const OPTIMIZERS: [(&str, &str, RGBColor); 4] = [
    ("Adam", "adamw", RGBColor(0, 114, 178)),
    ("Cautious-Adam", "cautious-adamw", RGBColor(213, 94, 0)),
    ("MGUP-Adam", "mgup-adamw", RGBColor(0, 158, 115)),
    ("Cautious-MGUP-Adam", "cautious-mgup-adamw", RGBColor(204, 121, 167)),
];

/// Cautious-Adam drifts away where MGUP-Adam converges: many seeds, one plot.
#[derive(Parser)]
struct Arguments {
    /// Random seeds to average over.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Steps of each run.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Folder for `counterexample.svg`.
    #[arg(long, default_value = "runs/counterexample")]
    out: PathBuf,
}

fn gradient(i: usize, x: f64) -> f64 {
    let slope = if x >= -1.0 { 1.0 } else { x + 2.0 };
    if i == 0 { N as f64 * slope } else { -slope }
}

/// x after every step.
fn trajectory(recipe: Recipe, seed: u64, steps: usize) -> Result<Vec<f64>, wgpu_optim::Error> {
    // The same draws for every optimizer.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut x = reference::Tensor::new(recipe, vec![-0.5_f64])?;
    Ok((0..steps)
        .map(|_| {
            let grad = gradient(random.random_range(0..N), x.param[0]);
            x.step(&[grad]);
            x.param[0]
        })
        .collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let steps = usize::try_from(arguments.steps)?;
    let mut curves = Vec::new();
    println!("{} seeds, lr 0.1, x₀ = −0.5, optimum {OPTIMUM}", arguments.seeds);
    println!("{:<20} {:>6} {:>10} {:>12} {:>12}", "", "step", "mean x", "std. dev.", "|x+2| < 0.1");
    for (label, preset, _) in OPTIMIZERS {
        let recipe = preset.parse::<Recipe>()?.with_lr(0.1);
        let runs: Vec<Vec<f64>> =
            (0..arguments.seeds).map(|seed| trajectory(recipe, seed, steps)).collect::<Result<_, _>>()?;
        let count = runs.len() as f64;
        let mean = |t: usize| runs.iter().map(|run| run[t]).sum::<f64>() / count;
        for step in MILESTONES.into_iter().filter(|&step| step <= steps) {
            let m = mean(step - 1);
            let variance = runs.iter().map(|run| (run[step - 1] - m).powi(2)).sum::<f64>() / count;
            let near = runs.iter().filter(|run| (run[step - 1] - OPTIMUM).abs() < 0.1).count() as f64;
            println!("{label:<20} {step:>6} {m:>10.3} {:>12.3} {:>11.0}%", variance.sqrt(), 100.0 * near / count);
        }
        curves.push((0..steps).map(mean).collect::<Vec<f64>>());
    }
    std::fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("counterexample.svg");
    plot(&path, &curves, arguments.seeds)?;
    println!("wrote {}", path.display());
    Ok(())
}

fn plot(path: &std::path::Path, curves: &[Vec<f64>], seeds: u64) -> Result<(), Box<dyn std::error::Error>> {
    let steps = curves[0].len();
    let all = curves.iter().flatten().copied();
    let (low, high) = all.fold((OPTIMUM, OPTIMUM), |(low, high), x| (low.min(x), high.max(x)));
    let margin = 0.05 * (high - low);
    let root = SVGBackend::new(path, (820, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption(format!("The poster's counterexample, mean over {seeds} seeds"), ("sans-serif", 18))
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d(0..steps, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(228, 228, 228))
        .x_desc("step")
        .y_desc("x")
        .label_style(("sans-serif", 14))
        .draw()?;
    let dashed = DashedLineSeries::new([(0, OPTIMUM), (steps, OPTIMUM)], 6, 4, BLACK.mix(0.6).into());
    chart
        .draw_series(dashed)?
        .label("optimum")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 22, y)], BLACK.mix(0.6)));
    for (curve, (label, _, color)) in curves.iter().zip(OPTIMIZERS) {
        let every = (steps / 1000).max(1);
        let points = curve.iter().enumerate().step_by(every).map(|(t, &x)| (t + 1, x));
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
