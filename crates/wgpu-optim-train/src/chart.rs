//! The loss curves as an SVG: what every step measured, faint, and its moving mean over it.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use wgpu_optim::{Telemetry, TensorTelemetry};

use crate::train::Run;

const SIZE: (u32, u32) = (960, 540);
/// More points than a line of this width can show only make the file larger.
const MAX_POINTS: usize = 1500;
const TEXT: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 228, 232);
/// Okabe and Ito's colors, which people with any color vision can tell apart.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// Draws the training losses of all runs on a logarithmic axis.
pub fn loss(data: &str, runs: &[Run]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, data, runs).map_err(|e| anyhow!("cannot draw the loss curves: {e}"))?;
    Ok(svg)
}

/// Draws the norms of all gradients and updates over the observed steps, on a logarithmic axis.
pub fn telemetry(data: &str, runs: &[Run]) -> Result<String> {
    let mut svg = String::new();
    draw_telemetry(&mut svg, data, runs).map_err(|e| anyhow!("cannot draw the telemetry: {e}"))?;
    Ok(svg)
}

fn draw_telemetry(svg: &mut String, data: &str, runs: &[Run]) -> Result<(), Box<dyn std::error::Error>> {
    type Of = fn(&TensorTelemetry) -> f32;
    let norms: [(&str, Of); 2] = [("gradient", |t| t.grad_norm), ("update", |t| t.update_norm)];
    let curve = |run: &Run, of: Of| -> Vec<(f64, f64)> {
        let norm = |found: &Telemetry| found.tensors.iter().map(|t| f64::from(of(t)).powi(2)).sum::<f64>().sqrt();
        let points = run.telemetry.iter().map(|found| (found.step as f64, norm(found)));
        points.filter(|(_, norm)| norm.is_finite() && *norm > 0.0).collect()
    };
    let all: Vec<_> = runs.iter().flat_map(|run| norms.iter().flat_map(|(_, of)| curve(run, *of))).collect();
    let bound = |start: f64, pick: fn(f64, f64) -> f64| all.iter().map(|point| point.1).fold(start, pick);
    let (low, high) = (bound(f64::MAX, f64::min), bound(f64::MIN_POSITIVE, f64::max));
    let (low, high) = if all.is_empty() { (1e-3, 1.0) } else { (low / 1.5, high * 1.5) };
    let steps = all.iter().map(|point| point.0).fold(2.0, f64::max);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = frame(&root, &format!("Norms, {data}"), "norm over all tensors (log scale)", steps, (low, high))?;
    for (index, run) in runs.iter().enumerate() {
        for (which, (name, of)) in norms.iter().enumerate() {
            // Gradients thin, updates thick.
            let style = COLORS[index % COLORS.len()].stroke_width(1 + 2 * which as u32);
            let points = curve(run, *of);
            if let [point] = points[..] {
                chart.draw_series([Circle::new(point, 4, style.filled())])?;
            }
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(format!("{}, {name}", run.optimizer))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
    }
    legend(&mut chart, SeriesLabelPosition::LowerLeft)?;
    root.present()?;
    Ok(())
}

fn draw(svg: &mut String, data: &str, runs: &[Run]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let steps = runs.iter().map(|r| r.losses.len()).max().unwrap_or(0);
    let window = (steps / 25).max(1);
    let (low, high) = limits(runs);
    let mut chart =
        frame(&root, &format!("Training loss, {data}"), "cross-entropy (log scale)", steps.max(2) as f64, (low, high))?;
    for (index, run) in runs.iter().enumerate() {
        let losses: Vec<f64> = run.losses.iter().map(|&l| f64::from(l).clamp(low, high)).collect();
        let color = COLORS[index % COLORS.len()];
        chart.draw_series(LineSeries::new(points(&losses), color.mix(0.18).stroke_width(1)))?;
    }
    for (index, run) in runs.iter().enumerate() {
        let losses: Vec<f64> = run.losses.iter().map(|&l| f64::from(l).clamp(low, high)).collect();
        let color = COLORS[index % COLORS.len()];
        let curve = points(&smooth(&losses, window));
        if let [point] = curve[..] {
            chart.draw_series([Circle::new(point, 4, color.filled())])?;
        }
        chart
            .draw_series(LineSeries::new(curve, color.stroke_width(3)))?
            .label(format!("{}  ({:.2} % on the test set)", run.optimizer, 100.0 * run.accuracy()))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], color.stroke_width(3)));
    }
    legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    root.present()?;
    Ok(())
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;

/// Caption, axes and grid: steps to the right, a logarithmic axis upwards.
fn frame<'a, 'b>(
    root: &'a DrawingArea<SVGBackend<'b>, Shift>,
    caption: &str,
    upwards: &str,
    steps: f64,
    (low, high): (f64, f64),
) -> Result<Chart<'a, 'b>, Box<dyn std::error::Error>>
where
    'b: 'a,
{
    let mut chart = ChartBuilder::on(root)
        .caption(caption, ("sans-serif", 22).into_font().color(&TEXT))
        .margin(16)
        .margin_right(28)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(0f64..steps, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .x_desc("step")
        .y_desc(upwards)
        .x_labels(10)
        .y_labels(8)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| number(*y))
        .label_style(("sans-serif", 15).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
        .draw()?;
    Ok(chart)
}

fn legend<'a, 'b: 'a>(
    chart: &mut Chart<'a, 'b>,
    position: SeriesLabelPosition,
) -> Result<(), Box<dyn std::error::Error>> {
    chart
        .configure_series_labels()
        .position(position)
        .margin(14)
        .legend_area_size(34)
        .background_style(WHITE.mix(0.9))
        .border_style(GRID)
        .label_font(("sans-serif", 16).into_font().color(&TEXT))
        .draw()?;
    Ok(())
}

/// The range of the loss axis: all losses but the lowest hundredth, which a log axis would give half the
/// picture.
fn limits(runs: &[Run]) -> (f64, f64) {
    let mut all: Vec<f64> = runs.iter().flat_map(|r| &r.losses).map(|&l| f64::from(l)).filter(|&l| l > 0.0).collect();
    all.sort_by(f64::total_cmp);
    match (all.get(all.len() / 100), all.last()) {
        (Some(low), Some(high)) => (low / 1.2, high * 1.2),
        _ => (1e-6, 1.0),
    }
}

/// The geometric mean over `window` steps around each: what the eye averages on a log axis.
fn smooth(losses: &[f64], window: usize) -> Vec<f64> {
    let mut sums = vec![0.0];
    for loss in losses {
        sums.push(sums[sums.len() - 1] + loss.ln());
    }
    (0..losses.len())
        .map(|at| {
            // As many steps before as after, which keeps the steep start in place; the end has only steps
            // before it.
            let before = (window / 2).min(at);
            let to = (at + before + 1).min(losses.len());
            let from = at - before;
            ((sums[to] - sums[from]) / (to - from) as f64).exp()
        })
        .collect()
}

/// (step, loss) pairs, steps from 1, thinned to what can be seen.
fn points(losses: &[f64]) -> Vec<(f64, f64)> {
    let stride = losses.len().div_ceil(MAX_POINTS).max(1);
    losses
        .iter()
        .enumerate()
        .filter(|(index, _)| index % stride == 0 || index + 1 == losses.len())
        .map(|(index, &loss)| ((index + 1) as f64, loss))
        .collect()
}

fn number(value: f64) -> String {
    if (1e-3..1e4).contains(&value) {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{value:.0e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_keeps_length_and_level() {
        let level = smooth(&[2.0; 7], 5);
        assert_eq!(level.len(), 7);
        assert!(level.iter().all(|l| (l - 2.0).abs() < 1e-9));
        let smoothed = smooth(&[1.0, 100.0, 1.0], 3);
        assert!((smoothed[1] - 100f64.powf(1.0 / 3.0)).abs() < 1e-9);
        assert_eq!(smoothed[0], 1.0);
        assert!((smoothed[2] - 10.0).abs() < 1e-9);
    }

    #[test]
    fn thinning_keeps_both_ends() {
        let losses: Vec<f64> = (1..=10_001).map(f64::from).collect();
        let points = points(&losses);
        assert!(points.len() <= MAX_POINTS + 1);
        assert_eq!(points[0], (1.0, 1.0));
        assert_eq!(points[points.len() - 1], (10_001.0, 10_001.0));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(number(1.0), "1");
        assert_eq!(number(0.05), "0.05");
        assert_eq!(number(1e-5), "1e-5");
    }
}
