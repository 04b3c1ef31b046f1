//! Nanoseconds per parameter against the number of parameters, as a plot.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::files;
use crate::report::Report;

/// 1, 3, 10, … thousand parameters up to `most`.
pub fn sizes(most: u64) -> Vec<u64> {
    let decades = (3..10).flat_map(|exponent| [10u64.pow(exponent), 3 * 10u64.pow(exponent)]);
    let mut sizes: Vec<_> = decades.take_while(|&size| size < most).collect();
    sizes.push(most);
    sizes
}

/// Draws the copy and every recipe.
pub fn draw(file: &Path, reports: &[Report]) -> Result<()> {
    let mut curves = vec![("copy".to_owned(), Vec::new())];
    curves.extend(reports[0].recipes.iter().map(|row| (row.name.clone(), Vec::new())));
    for report in reports {
        let size = report.params as f64;
        let values = std::iter::once(report.copy.ns_per_param).chain(report.recipes.iter().map(|r| r.ns_per_param));
        for ((_, points), value) in curves.iter_mut().zip(values) {
            points.push((size, value));
        }
    }
    let all = || curves.iter().flat_map(|(_, points)| points).copied();
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold((f64::MAX, 0.0f64), |(low, high), x| (low.min(x), high.max(x)))
    };
    let (left, right) = range(&mut all().map(|(x, _)| x));
    let (low, high) = range(&mut all().map(|(_, y)| y));

    let mut svg = String::new();
    paint(&mut svg, &reports[0].adapter, &curves, (left, right), (low, high))
        .map_err(|e| anyhow!("cannot draw the plot: {e}"))?;
    Ok(files::write(file, svg.as_bytes())?)
}

type Curve = (String, Vec<(f64, f64)>);

fn paint(
    svg: &mut String,
    adapter: &str,
    curves: &[Curve],
    (left, right): (f64, f64),
    (low, high): (f64, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (860, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Nanoseconds per parameter, {}", adapter), ("sans-serif", 14))
        .margin(16)
        .x_label_area_size(42)
        .y_label_area_size(60)
        .build_cartesian_2d((left..right * 1.2).log_scale(), (low / 1.3..high * 1.3).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(BLACK.mix(0.06))
        .bold_line_style(BLACK.mix(0.15))
        .x_desc("parameters, in one tensor")
        .y_desc("ns per parameter")
        .x_label_formatter(&|x| format!("{x:.0e}"))
        .y_label_formatter(&|y| if *y < 10.0 { format!("{y:.1}") } else { format!("{y:.0}") })
        .draw()?;
    // Distinct for color-blind eyes (Okabe and Ito).
    let colors = [(0, 0, 0), (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0)];
    for (i, (name, points)) in curves.iter().enumerate() {
        let (r, g, b) = colors[i % colors.len()];
        let color = RGBColor(r, g, b);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
            // The box is drawn a little narrower than the text.
            .label(format!("{name}    "))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    root.present()?;
    Ok(())
}
