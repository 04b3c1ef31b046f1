//! The losses of a race as curves.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::race::Racer;

/// Distinct for color-blind eyes (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Draws an SVG.
pub fn draw(racers: &[Racer]) -> Result<String> {
    let mut svg = String::new();
    paint(&mut svg, racers).map_err(|e| anyhow!("cannot draw the curves: {e}"))?;
    Ok(svg)
}

fn paint(svg: &mut String, racers: &[Racer]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || racers.iter().flat_map(|racer| racer.losses.iter().copied()).filter(|loss| *loss > 0.0);
    let (low, high) = (all().fold(f32::MAX, f32::min), all().fold(f32::MIN_POSITIVE, f32::max));
    let steps = racers.iter().map(|racer| racer.losses.len()).max().unwrap_or(1);
    let root = SVGBackend::with_string(svg, (860, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0..steps, (low * 0.9..high * 1.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("step")
        .y_desc("mean squared error")
        .y_label_formatter(&|loss| format!("{loss:.0e}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (i, racer) in racers.iter().enumerate() {
        let color = COLORS[i % COLORS.len()];
        chart
            .draw_series(LineSeries::new(racer.losses.iter().copied().enumerate(), color.stroke_width(2)))?
            .label(format!("{}    ", racer.name))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.2)).draw()?;
    root.present()?;
    Ok(())
}
