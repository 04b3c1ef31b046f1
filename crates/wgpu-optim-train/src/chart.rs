//! Charts as SVG, readable in light and dark: lines, bands and points over two axes, and intervals in rows.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 540);
/// Room for names to the right of a chart.
const NAMES_WIDTH: u32 = 250;
/// Length and distance of dashes.
const DASH: (i32, i32) = (8, 5);
/// More points than a line of this width can show only make the file larger.
const MAX_POINTS: usize = 1500;
const TEXT: RGBColor = RGBColor(51, 51, 51);
const GRID: RGBColor = RGBColor(225, 228, 232);
/// Okabe and Ito's colors, which people with any color vision can tell apart.
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(136, 136, 136),
];
/// What the colors of paper and ink become where the reader's programs are dark.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) {\
    [fill=\"#FFFFFF\"] { fill: #14171C } [fill=\"#333333\"] { fill: #D5DAE0 } \
    [stroke=\"#333333\"] { stroke: #D5DAE0 } [stroke=\"#E1E4E8\"] { stroke: #333A42 } \
    [stroke=\"#0072B2\"] { stroke: #3D9BD6 } [fill=\"#0072B2\"] { fill: #3D9BD6 } }</style>";

type Failure = Box<dyn std::error::Error>;

/// An axis.
#[derive(Debug, Clone, Default)]
pub struct Axis {
    /// What it shows, with the unit.
    pub name: String,
    /// Whether it is logarithmic. Values that are not positive are left out.
    pub is_log: bool,
    /// The range, if it does not follow from the series.
    pub range: Option<(f64, f64)>,
}

/// A line, or points.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name in the legend. Empty for none.
    pub name: String,
    /// Its color, by number. Series of the same number have the same color.
    pub color: usize,
    /// Points (x, y).
    pub points: Vec<(f64, f64)>,
    /// A band around the line, (x, low, high).
    pub band: Vec<(f64, f64, f64)>,
    /// Width of the line, in pixels; 0 for no line.
    pub width: u32,
    /// Opacity, 0 to 1.
    pub opacity: f64,
    /// Whether each point has a mark.
    pub has_marks: bool,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// The axis to the right.
    pub x: Axis,
    /// The axis upwards.
    pub y: Axis,
    /// What it shows. Later ones lie over earlier ones.
    pub series: Vec<Series>,
    /// Where the names of the series stand.
    pub legend: Legend,
}

/// Where the names of the series of a chart stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legend {
    /// In the chart, at the top right.
    TopRight,
    /// In the chart, at the bottom left.
    BottomLeft,
    /// To the right of the chart, where they cover nothing.
    Right,
}

/// A row of a chart of intervals.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Its name.
    pub name: String,
    /// The middle.
    pub middle: f64,
    /// The ends.
    pub ends: (f64, f64),
    /// Its color, by number.
    pub color: usize,
}

impl Axis {
    /// A linear axis.
    pub fn linear(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// A logarithmic axis.
    pub fn log(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_log: true, range: None }
    }

    /// The place of a value; NaN for one that is left out.
    fn place(&self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }

    fn label(&self, place: f64) -> String {
        number(if self.is_log { 10f64.powf(place) } else { place })
    }

    /// Where labels stand: at round values, up to ten of them.
    fn ticks(&self, low: f64, high: f64) -> Vec<f64> {
        if !self.is_log {
            return rounds(low, high);
        }
        let (least, most) = (10f64.powf(low), 10f64.powf(high));
        // Over less than a decade, round steps.
        if high - low < 0.9 {
            return rounds(least, most).into_iter().map(f64::log10).collect();
        }
        let decades = low.floor() as i32..=high.ceil() as i32;
        let of = |digits: &[f64]| -> Vec<f64> {
            let all = decades.clone().flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
            all.map(f64::log10).filter(|place| (low..=high).contains(place)).collect()
        };
        let (dense, sparse) = (of(&[1.0, 2.0, 5.0]), of(&[1.0]));
        if dense.len() <= 10 { dense } else { sparse }
    }

    /// The range of these values, in places.
    fn span(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        if let Some((low, high)) = self.range {
            return (self.place(low), self.place(high));
        }
        let places = values.map(|value| self.place(value)).filter(|place| place.is_finite());
        let (low, high) = places.fold((f64::MAX, f64::MIN), |(low, high), place| (low.min(place), high.max(place)));
        if low > high {
            return (0.0, 1.0);
        }
        let margin = ((high - low) * 0.05).max(1e-9 + 1e-3 * low.abs());
        (low - margin, high + margin)
    }
}

/// A range whose labels stand at these places.
struct Scale {
    range: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ranged for Scale {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.range()
    }
}

impl Series {
    /// A line with a name.
    pub fn line(name: impl Into<String>, color: usize, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), color, points, band: Vec::new(), width: 3, opacity: 1.0, has_marks: false }
    }

    /// Colors repeat after seven series.
    fn is_dashed(&self) -> bool {
        self.color / COLORS.len() % 2 == 1
    }

    fn color(&self) -> RGBAColor {
        COLORS[self.color % COLORS.len()].mix(self.opacity)
    }
}

impl Chart {
    /// The SVG.
    ///
    /// # Errors
    /// If it cannot be drawn.
    pub fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| anyhow!("cannot draw {}: {error}", self.title))?;
        Ok(in_the_dark(svg))
    }

    fn draw(&self, svg: &mut String) -> Result<(), Failure> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || self.series.iter().flat_map(|series| &series.points);
        let bands = || self.series.iter().flat_map(|series| &series.band);
        let (left, right) = self.x.span(points().map(|point| point.0));
        let highs = bands().flat_map(|band| [band.1, band.2]);
        let (low, high) = self.y.span(points().map(|point| point.1).chain(highs));
        let mut chart = ChartBuilder::on(&root)
            .caption(&self.title, ("sans-serif", 22).into_font().color(&TEXT))
            .margin(16)
            .margin_right(if self.legend == Legend::Right { NAMES_WIDTH } else { 28 })
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(
                Scale { range: (left..right).into(), ticks: self.x.ticks(left, right) },
                Scale { range: (low..high).into(), ticks: self.y.ticks(low, high) },
            )?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(TEXT)
            .x_desc(&self.x.name)
            .y_desc(&self.y.name)
            .x_label_formatter(&|x| self.x.label(*x))
            .y_label_formatter(&|y| self.y.label(*y))
            .label_style(("sans-serif", 15).into_font().color(&TEXT))
            .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
            .draw()?;
        let place = |&(x, y): &(f64, f64)| (self.x.place(x), self.y.place(y).clamp(low, high));
        let is_seen = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
        for series in &self.series {
            let color = series.color();
            let edge = |of: fn(&(f64, f64, f64)) -> f64| series.band.iter().map(move |band| (band.0, of(band)));
            let around: Vec<_> = edge(|band| band.1)
                .chain(edge(|band| band.2).rev())
                .map(|point| place(&point))
                .filter(is_seen)
                .collect();
            if around.len() > 2 {
                chart.draw_series([Polygon::new(around, color.mix(0.12).filled())])?;
            }
        }
        for series in &self.series {
            let color = series.color();
            let stride = series.points.len().div_ceil(MAX_POINTS).max(1);
            let last = series.points.len().saturating_sub(1);
            let shown = series.points.iter().enumerate().filter(|(index, _)| index % stride == 0 || *index == last);
            let shown: Vec<_> = shown.map(|(_, point)| place(point)).filter(is_seen).collect();
            if series.has_marks || shown.len() == 1 {
                chart.draw_series(shown.iter().map(|point| Circle::new(*point, 4, color.filled())))?;
            }
            let style = color.stroke_width(series.width.max(1));
            let line = if series.width > 0 { shown } else { Vec::new() };
            let drawn = match series.is_dashed() {
                true => chart.draw_series(DashedLineSeries::new(line, DASH.0, DASH.1, style))?,
                false => chart.draw_series(LineSeries::new(line, style))?,
            };
            if !series.name.is_empty() && self.legend != Legend::Right {
                drawn.label(&series.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
            }
        }
        if self.legend == Legend::Right {
            for (row, series) in self.series.iter().filter(|series| !series.name.is_empty()).enumerate() {
                let (x, y) = ((SIZE.0 - NAMES_WIDTH) as i32 + 14, 62 + 26 * row as i32);
                let (line, style) = (vec![(x, y), (x + 30, y)], series.color().stroke_width(series.width.max(2)));
                match series.is_dashed() {
                    true => root.draw(&DashedPathElement::new(line, DASH.0, DASH.1, style))?,
                    false => root.draw(&PathElement::new(line, style))?,
                }
                let text = ("sans-serif", 15).into_text_style(&root).color(&TEXT);
                root.draw_text(&series.name, &text, (x + 40, y - 8))?;
            }
        } else if self.series.iter().any(|series| !series.name.is_empty()) {
            let place = match self.legend {
                Legend::BottomLeft => SeriesLabelPosition::LowerLeft,
                _ => SeriesLabelPosition::UpperRight,
            };
            chart
                .configure_series_labels()
                .position(place)
                .margin(14)
                .legend_area_size(34)
                .background_style(WHITE.filled())
                .border_style(GRID)
                .label_font(("sans-serif", 16).into_font().color(&TEXT))
                .draw()?;
        }
        root.present()?;
        Ok(())
    }
}

/// Intervals in rows, with a line at 0: differences, and which of them are decided.
///
/// # Errors
/// If it cannot be drawn.
pub fn intervals(title: &str, axis: &str, rows: &[Interval]) -> Result<String> {
    let mut svg = String::new();
    draw_intervals(&mut svg, title, axis, rows).map_err(|error| anyhow!("cannot draw {title}: {error}"))?;
    Ok(in_the_dark(svg))
}

fn draw_intervals(svg: &mut String, title: &str, axis: &str, rows: &[Interval]) -> Result<(), Failure> {
    let root = SVGBackend::with_string(svg, (SIZE.0, 110 + 34 * rows.len().max(1) as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let ends = rows.iter().flat_map(|row| [row.ends.0, row.ends.1, 0.0]);
    let (left, right) = Axis::linear("").span(ends);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 22).into_font().color(&TEXT))
        .margin(16)
        .margin_right(28)
        .x_label_area_size(48)
        .y_label_area_size(330)
        .build_cartesian_2d(
            Scale { range: (left..right).into(), ticks: rounds(left, right) },
            -(rows.len() as f64)..0.0,
        )?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(TEXT)
        .x_desc(axis)
        .x_label_formatter(&|x| number(*x))
        .label_style(("sans-serif", 15).into_font().color(&TEXT))
        .axis_desc_style(("sans-serif", 16).into_font().color(&TEXT))
        .draw()?;
    chart.draw_series([PathElement::new([(0.0, -(rows.len() as f64)), (0.0, 0.0)], TEXT.stroke_width(1))])?;
    for (at, row) in rows.iter().enumerate() {
        let (y, color) = (-(at as f64) - 0.5, COLORS[row.color % COLORS.len()]);
        chart.draw_series([PathElement::new([(row.ends.0, y), (row.ends.1, y)], color.stroke_width(3))])?;
        chart.draw_series([Circle::new((row.middle, y), 5, color.filled())])?;
        let (_, pixel) = chart.backend_coord(&(left, y));
        root.draw_text(&row.name, &("sans-serif", 15).into_text_style(&root).color(&TEXT), (16, pixel - 8))?;
    }
    root.present()?;
    Ok(())
}

/// With other colors for dark surroundings.
fn in_the_dark(svg: String) -> String {
    match svg.find('>') {
        Some(end) => format!("{}{DARK}{}", &svg[..=end], &svg[end + 1..]),
        None => svg,
    }
}

/// The geometric mean over `window` steps around each: what the eye averages on a logarithmic axis.
pub fn smooth(losses: &[f64], window: usize) -> Vec<f64> {
    let mut sums = vec![0.0];
    for loss in losses {
        sums.push(sums[sums.len() - 1] + loss.ln());
    }
    (0..losses.len())
        .map(|at| {
            // As many steps before as after, which keeps the steep start in place; the end has only steps before it.
            let before = (window / 2).min(at);
            let to = (at + before + 1).min(losses.len());
            let from = at - before;
            ((sums[to] - sums[from]) / (to - from) as f64).exp()
        })
        .collect()
}

/// Multiples of 1, 2 or 5 and a power of ten between these, at most eight of them.
fn rounds(low: f64, high: f64) -> Vec<f64> {
    let least = (high - low) / 7.0;
    let power = 10f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|&step| step >= least);
    let step = step.unwrap_or(10.0 * power);
    ((low / step).ceil() as i64..=(high / step).floor() as i64).map(|at| at as f64 * step).collect()
}

/// A number in few characters.
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-3..1e4).contains(&value.abs()) {
        let text = format!("{value:.4}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        if text == "-0" { "0".into() } else { text.into() }
    } else if value.abs() < 1e-12 {
        "0".into()
    } else {
        format!("{value:.1e}").replace(".0e", "e")
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
        let points: Vec<(f64, f64)> = (1..=10_001).map(|at| (f64::from(at), f64::from(at % 7))).collect();
        let chart = |points: Vec<(f64, f64)>| Chart {
            title: String::new(),
            x: Axis::linear("x"),
            y: Axis { range: Some((0.0, 7.0)), ..Axis::linear("y") },
            series: vec![Series::line("", 0, points)],
            legend: Legend::TopRight,
        };
        let line = |svg: String| {
            svg.lines().find(|line| line.contains("#0072B2") && line.contains("points")).unwrap().to_owned()
        };
        let (all, ends) =
            (line(chart(points.clone()).svg().unwrap()), line(chart(vec![points[0], points[10_000]]).svg().unwrap()));
        let points_of = |line: &str| -> Vec<String> {
            line.split("points=\"")
                .nth(1)
                .unwrap()
                .split('"')
                .next()
                .unwrap()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        let (all, ends) = (points_of(&all), points_of(&ends));
        assert!(all.len() <= MAX_POINTS + 1, "{}", all.len());
        assert_eq!([&all[0], all.last().unwrap()], [&ends[0], ends.last().unwrap()]);
    }

    #[test]
    fn labels_stand_at_round_values() {
        let labels = |axis: &Axis, low: f64, high: f64| {
            let ticks = axis.ticks(axis.place(low), axis.place(high));
            ticks.into_iter().map(|place| axis.label(place)).collect::<Vec<_>>().join(" ")
        };
        let (linear, log) = (Axis::linear(""), Axis::log(""));
        for (axis, low, high, expected) in [
            (&linear, -12.0, 312.0, "0 50 100 150 200 250 300"),
            (&linear, 0.0, 1.0, "0 0.2 0.4 0.6 0.8 1"),
            (&linear, -0.031, 0.004, "-0.03 -0.025 -0.02 -0.015 -0.01 -0.005 0"),
            (&log, 1.9, 6.4, "2 3 4 5 6"),
            (&log, 4e-4, 3.1e-2, "5e-4 0.001 0.002 0.005 0.01 0.02"),
            (&log, 1e-6, 1.0, "1e-6 1e-5 1e-4 0.001 0.01 0.1 1"),
        ] {
            assert_eq!(labels(axis, low, high), expected);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in
            [(1.0, "1"), (0.05, "0.05"), (1e-5, "1e-5"), (2.5e-4, "2.5e-4"), (0.0, "0"), (-0.25, "-0.25")]
        {
            assert_eq!(number(value), text);
        }
    }
}
