//! What the charts of a run show: what every step measured, faint, and its moving mean over it.

use anyhow::Result;
use wgpu_optim::{Telemetry, TensorTelemetry};
use wgpu_optim_train::chart::{Axis, Chart, Legend, Series, smooth};

use crate::train::Run;

/// Draws the training losses of all runs on a logarithmic axis.
pub fn loss(data: &str, runs: &[Run]) -> Result<String> {
    let steps = runs.iter().map(|r| r.losses.len()).max().unwrap_or(0);
    let points =
        |losses: Vec<f64>| losses.into_iter().enumerate().map(|(index, loss)| ((index + 1) as f64, loss)).collect();
    let losses = |run: &Run| run.losses.iter().map(|&loss| f64::from(loss)).collect::<Vec<_>>();
    let faint = runs.iter().enumerate().map(|(index, run)| {
        let line = Series::line("", index, points(losses(run)));
        Series { width: 1, opacity: 0.25, ..line }
    });
    let (low, high) = limits(runs);
    let smoothed = runs.iter().enumerate().map(|(index, run)| {
        let name = format!("{}  ({:.2} % on the test set)", run.optimizer, 100.0 * run.accuracy());
        let losses: Vec<f64> = losses(run).into_iter().map(|loss| loss.clamp(low, high)).collect();
        Series::line(name, index, points(smooth(&losses, (steps / 25).max(1))))
    });
    let chart = Chart {
        title: format!("Training loss, {data}"),
        x: Axis { range: Some((0.0, steps.max(2) as f64)), ..Axis::linear("step") },
        y: Axis { range: Some((low, high)), ..Axis::log("cross-entropy (log scale)") },
        series: faint.chain(smoothed).collect(),
        legend: Legend::TopRight,
    };
    chart.svg()
}

/// Draws the norms of all gradients and updates over the observed steps, on a logarithmic axis.
pub fn telemetry(data: &str, runs: &[Run]) -> Result<String> {
    type Of = fn(&TensorTelemetry) -> f32;
    // Gradients thin, updates thick.
    let norms: [(&str, Of, u32); 2] = [("gradient", |t| t.grad_norm, 1), ("update", |t| t.update_norm, 3)];
    let curve = |run: &Run, of: Of| -> Vec<(f64, f64)> {
        let norm = |found: &Telemetry| found.tensors.iter().map(|t| f64::from(of(t)).powi(2)).sum::<f64>().sqrt();
        let points = run.telemetry.iter().map(|found| (found.step as f64, norm(found)));
        points.filter(|(_, norm)| norm.is_finite() && *norm > 0.0).collect()
    };
    let of_run = |(index, run): (usize, &Run)| {
        norms.map(|(name, of, width)| Series {
            width,
            ..Series::line(format!("{}, {name}", run.optimizer), index, curve(run, of))
        })
    };
    let chart = Chart {
        title: format!("Norms, {data}"),
        x: Axis::linear("step"),
        y: Axis::log("norm over all tensors (log scale)"),
        series: runs.iter().enumerate().flat_map(of_run).collect(),
        legend: Legend::BottomLeft,
    };
    chart.svg()
}

/// The range of the loss axis: all losses but the lowest hundredth, which a log axis would give half the picture.
fn limits(runs: &[Run]) -> (f64, f64) {
    let mut all: Vec<f64> = runs.iter().flat_map(|r| &r.losses).map(|&l| f64::from(l)).filter(|&l| l > 0.0).collect();
    all.sort_by(f64::total_cmp);
    match (all.get(all.len() / 100), all.last()) {
        (Some(low), Some(high)) => (low / 1.2, high * 1.2),
        _ => (1e-6, 1.0),
    }
}
