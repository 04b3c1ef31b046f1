//! Fits a picture with 2-D Gaussians: a renderer whose parameters lie in GPU buffers and whose gradients its own WGSL writes.
//!
//! The same pipeline as the demo page of crates/wgpu-optim-web. Run it with `cargo run --release --example fit_image`; it
//! writes pictures and a plot of the losses.

mod fit;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Parser;
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageReader, Rgb32FImage};
use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use wgpu_optim::policy::Policy;
use wgpu_optim::{Error, Recipe, Requirements, adapter, wgpu};

use fit::{Fit, Picture};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Fits a picture with 2-D Gaussians, once for each optimizer, and writes pictures and a plot.
#[derive(Parser)]
struct Arguments {
    /// Optimizers, by name, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "adamw,mgup-adamw", value_parser = recipe)]
    optimizers: Vec<Recipe>,
    /// PNG or JPEG to fit; without one, a scene that the example draws.
    #[arg(long)]
    image: Option<PathBuf>,
    /// Pixels of the longer side.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(16..=2048))]
    size: u32,
    /// Gaussians.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    gaussians: u32,
    /// Steps of each optimizer.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
    /// Learning rate, for all optimizers; without one, each base's own for this task.
    #[arg(long)]
    lr: Option<f64>,
    /// τ of mgup and cautious-mgup, between 0 and 1.
    #[arg(long)]
    ratio: Option<f64>,
    /// Where the Gaussians lie at first.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Folder for what is written.
    #[arg(long, default_value = "runs/fit")]
    out: PathBuf,
}

fn recipe(name: &str) -> std::result::Result<Recipe, Error> {
    name.parse()
}

fn main() -> Result<()> {
    let args = Arguments::parse();
    let recipes = args.recipes()?;
    let image = match &args.image {
        Some(path) => Some(open(path, args.size)?),
        None => None,
    };
    let size = image.as_ref().map_or([args.size, args.size * 3 / 4], |image| image.dimensions().into());

    let (_instance, found) = pollster::block_on(adapter::from_env())?;
    println!("{}", adapter::describe(&found.get_info()));
    let required_limits = Requirements::webgpu().device_limits(&found.limits())?;
    let descriptor = wgpu::DeviceDescriptor { required_limits, ..wgpu::DeviceDescriptor::default() };
    let (device, queue) = pollster::block_on(found.request_device(&descriptor))?;
    let picture = Picture::scene(&device, &queue, size, args.gaussians, args.seed);
    if let Some(image) = image {
        let pixels: Vec<_> = image.pixels().map(|p| [p.0[0], p.0[1], p.0[2], 1.0]).collect();
        picture.set(&pixels);
    }
    fs::create_dir_all(&args.out)?;
    save(&picture, &picture.pixels()?, &args.out.join("target.png"))?;

    println!("{} Gaussians, {} × {} pixels, {} steps", args.gaussians, size[0], size[1], args.steps);
    let mut curves = Vec::new();
    for recipe in recipes {
        let name = recipe.name();
        let mut fit = picture.fit(recipe, args.steps)?;
        let seconds = run(&mut fit, &name, args.steps)?;
        save(&picture, &fit.pixels()?, &args.out.join(format!("{name}.png")))?;
        let losses = fit.losses()?;
        let last = losses[losses.len() - 1];
        let rate = f64::from(args.steps) / seconds;
        println!(
            "{name:28} lr {:<8} loss {:.3e} → {last:.3e}, {:.2} dB, {rate:.1} steps/s",
            recipe.lr(),
            losses[0],
            -10.0 * last.log10()
        );
        curves.push((name, losses));
        fit.optimizer.destroy();
    }
    let plot = args.out.join("loss.svg");
    draw(&plot, &curves)?;
    println!("pictures and {} are in {}", plot.display(), args.out.display());
    Ok(())
}

impl Arguments {
    /// The optimizers, with their learning rates and τ.
    fn recipes(&self) -> Result<Vec<Recipe>> {
        let rates: BTreeMap<String, f64> = serde_json::from_str(include_str!("learning_rates.json"))?;
        let mut recipes = self.optimizers.clone();
        for recipe in &mut recipes {
            let base = serde_json::to_value(recipe.base)?;
            let own = base["type"].as_str().and_then(|name| rates.get(name)).ok_or("a rate for every base")?;
            *recipe = recipe.with_lr(self.lr.unwrap_or(*own));
            if let Some(ratio) = self.ratio {
                recipe.policy = match recipe.policy {
                    Policy::Mgup(mgup) => mgup.ratio(ratio).into(),
                    Policy::CautiousMgup(mgup) => mgup.ratio(ratio).into(),
                    other => other,
                };
            }
            recipe.validate()?;
        }
        Ok(recipes)
    }
}

/// Takes all steps, and returns how many seconds they took.
fn run(fit: &mut Fit<'_>, name: &str, steps: u32) -> Result<f64> {
    let style = ProgressStyle::with_template("{prefix:28} {bar:30} {pos}/{len}  {msg}")?;
    let bar = ProgressBar::new(steps.into()).with_style(style).with_prefix(name.to_owned());
    // The first step compiles what it needs.
    fit.step()?;
    fit.losses()?;
    let begun = Instant::now();
    for step in 1..steps {
        fit.step()?;
        if step % 50 == 0 {
            let losses = fit.losses()?;
            bar.set_position(step.into());
            bar.set_message(format!("loss {:.3e}", losses[losses.len() - 1]));
        }
    }
    fit.losses()?;
    bar.finish_and_clear();
    Ok(begun.elapsed().as_secs_f64())
}

/// A picture of at most so many pixels a side, as its camera was held, on white.
fn open(path: &Path, size: u32) -> Result<Rgb32FImage> {
    let read = || -> image::ImageResult<DynamicImage> {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    let mut image = read().map_err(|e| format!("{}: {e}", path.display()))?;
    if image.width().max(image.height()) > size {
        image = image.resize(size, size, FilterType::Triangle);
    }
    let pixels = image.into_rgba32f();
    Ok(Rgb32FImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        let [r, g, b, a] = pixels.get_pixel(x, y).0;
        image::Rgb([r, g, b].map(|value| value * a + 1.0 - a))
    }))
}

fn save(picture: &Picture, pixels: &[[f32; 4]], path: &Path) -> Result<()> {
    let values = pixels.iter().flat_map(|p| [p[0], p[1], p[2]]).map(|x| x.clamp(0.0, 1.0)).collect();
    let image = Rgb32FImage::from_raw(picture.width, picture.height, values).ok_or("a value a pixel")?;
    Ok(DynamicImage::from(image).into_rgb8().save(path)?)
}

fn draw(path: &Path, curves: &[(String, Vec<f32>)]) -> Result<()> {
    let all = || curves.iter().flat_map(|(_, losses)| losses.iter().copied()).filter(|loss| *loss > 0.0);
    let (low, high) = (all().fold(f32::MAX, f32::min), all().fold(0.0, f32::max));
    let steps = curves.iter().map(|(_, losses)| losses.len()).max().unwrap_or(1);
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(16)
        .caption("Fitting a picture with Gaussians", ("sans-serif", 18))
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
    for (i, (name, losses)) in curves.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        chart
            .draw_series(LineSeries::new(losses.iter().copied().enumerate(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.2)).draw()?;
    root.present()?;
    Ok(())
}

const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];
