//! `wgpu-optim demo`: a race of optimizers on this GPU. They fit 2-D Gaussians to a picture, with gradients that WGSL of the
//! demo's own writes into their buffers. The page of crates/wgpu-optim-web runs the same shaders.

mod chart;
mod fit;
mod images;
mod page;
mod race;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use wgpu_optim::policy::Policy;
use wgpu_optim::{Recipe, wgpu};

use self::fit::Picture;
use self::images::{open, png};
use self::race::Race;
use crate::adapters::open_chosen;
use crate::files;
use crate::numbers::whole;
use crate::recipes;

/// Race optimizers on this GPU: each fits a picture with 2-D Gaussians.
///
/// Shows the losses while they fall, then a table, and writes a report with the pictures and the curves. The optimizers take turns of a
/// few steps, so that their speeds are comparable. On software adapters the defaults are smaller.
#[derive(clap::Args)]
pub struct Arguments {
    /// Optimizers, separated by commas: presets, JSON recipe files, or WGSL files.
    #[arg(long, value_delimiter = ',', default_value = "adamw,mgup-adamw,lion,mgup-lion", value_parser = racer)]
    optimizers: Vec<(String, Recipe)>,
    /// PNG or JPEG to fit. Default: a scene that the demo draws.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Pixels of the longer side, 16 to 2048. Default 256, or 128 on a software adapter.
    #[arg(long, allow_negative_numbers = true, value_parser = whole::<u32>(16..=2048))]
    size: Option<u32>,
    /// Number of Gaussians, 1 to 65535. Default 2000, or 500 on a software adapter.
    #[arg(long, allow_negative_numbers = true, value_parser = whole::<u32>(1..=65_535))]
    gaussians: Option<u32>,
    /// Steps per optimizer, 2 to 1000000. Default 1000, or 300 on a software adapter.
    #[arg(long, allow_negative_numbers = true, value_parser = whole::<u32>(2..=1_000_000))]
    steps: Option<u32>,
    /// Learning rate of all optimizers. Default: for presets, one that suits this task; for recipe files, their own.
    #[arg(long, allow_negative_numbers = true)]
    lr: Option<f64>,
    /// τ of MGUP and Cautious-MGUP, between 0 and 1. Default: the recipe's, which is 0.5 for presets.
    #[arg(long, allow_negative_numbers = true)]
    ratio: Option<f64>,
    /// Seed for the initial places and angles of the Gaussians.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Folder for the report, the pictures and the curves.
    #[arg(long, default_value = "runs/demo", value_name = "FOLDER")]
    out: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn racer(text: &str) -> Result<(String, Recipe), String> {
    recipes::named(text.as_ref())
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let racers = arguments.racers()?;
    let (adapter, device, queue) = open_chosen()?;
    let is_cpu = device.adapter_info().device_type == wgpu::DeviceType::Cpu;
    let or = |given: Option<u32>, gpu: u32, cpu: u32| given.unwrap_or(if is_cpu { cpu } else { gpu });
    let (side, steps) = (or(arguments.size, 256, 128), or(arguments.steps, 1000, 300));
    let image = arguments.image.as_ref().map(|path| open(path, side)).transpose()?;
    let size = image.as_ref().map_or([side, side * 3 / 4], |image| image.dimensions().into());
    let picture = Picture::scene(&device, &queue, size, or(arguments.gaussians, 2000, 500), arguments.seed);
    if let Some(image) = image {
        let pixels: Vec<_> = image.pixels().map(|p| [p.0[0], p.0[1], p.0[2], 1.0]).collect();
        picture.set(&pixels);
    }

    // Before the race, so that no result is lost.
    let out = &arguments.out;
    let cannot = || format!("cannot write the report to {}; choose another folder with --out", out.display());
    fs::create_dir_all(out).with_context(cannot)?;
    eprintln!(
        "{adapter}: {} Gaussians, {} × {} pixels, {steps} steps per optimizer",
        picture.gaussians, size[0], size[1]
    );
    let race = Race::run(adapter, &picture, racers, steps).inspect_err(|_| {
        // Unless there is something in it.
        let _ = fs::remove_dir(out);
    })?;
    let target = png(&picture, &picture.pixels()?)?;
    let curves = chart::draw(&race.results)?;
    let write = |name: String, bytes: &[u8]| files::write(&out.join(name), bytes).with_context(cannot);
    write("target.png".to_owned(), &target)?;
    for result in &race.results {
        write(format!("{}.png", result.name), &result.picture)?;
    }
    write("loss.svg".to_owned(), curves.as_bytes())?;
    write("report.html".to_owned(), page::page(&race, &target, &curves).as_bytes())?;
    match arguments.json {
        true => println!("{}", serde_json::to_string_pretty(&race)?),
        false => println!("{race}"),
    }
    let report = std::path::absolute(out.join("report.html"))?;
    eprintln!("Open {} in a browser to see the pictures and the curves.", report.display());
    Ok(())
}

impl Arguments {
    /// The optimizers with their learning rates and τ.
    fn racers(&self) -> Result<Vec<(String, Recipe)>> {
        let rates: BTreeMap<String, f64> = serde_json::from_str(include_str!("learning_rates.json"))?;
        let mut names = BTreeSet::new();
        let mut racers = self.optimizers.clone();
        for (name, recipe) in &mut racers {
            if !names.insert(name.clone()) {
                bail!("--optimizers names `{name}` twice; name each once");
            }
            let is_preset = name.parse().is_ok_and(|preset: Recipe| preset == *recipe);
            let base = serde_json::to_value(recipe.base)?;
            let own = base["type"].as_str().and_then(|base| rates.get(base)).filter(|_| is_preset);
            *recipe = recipe.with_lr(self.lr.or(own.copied()).unwrap_or(recipe.lr()));
            if let Some(ratio) = self.ratio {
                recipe.policy = match recipe.policy {
                    Policy::Mgup(mgup) => mgup.ratio(ratio).into(),
                    Policy::CautiousMgup(mgup) => mgup.ratio(ratio).into(),
                    other => other,
                };
            }
            recipe.validate().with_context(|| name.clone())?;
        }
        Ok(racers)
    }
}
