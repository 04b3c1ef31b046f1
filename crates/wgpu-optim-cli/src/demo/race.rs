//! Optimizers that take turns on one GPU, and what became of each.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use wgpu_optim::Recipe;

use super::fit::{Fit, Picture};
use super::images::png;

/// Steps of a turn.
const TURN: u32 = 10;

/// How the optimizers did, the lowest loss first.
#[derive(Serialize)]
pub struct Race {
    pub adapter: String,
    pub width: u32,
    pub height: u32,
    pub gaussians: u32,
    pub steps: u32,
    pub results: Vec<Racer>,
}

/// How an optimizer did.
#[derive(Serialize)]
pub struct Racer {
    pub name: String,
    pub lr: f64,
    pub first_loss: f32,
    pub last_loss: f32,
    /// Peak signal-to-noise ratio of the last picture, in decibels.
    pub psnr: f32,
    /// Without the first step, which compiles pipelines.
    pub steps_per_second: f64,
    pub seconds: f64,
    /// Bytes of its buffers, parameters and gradients included.
    pub memory: u64,
    pub dispatches: u64,
    #[serde(skip)]
    pub losses: Vec<f32>,
    /// As a PNG.
    #[serde(skip)]
    pub picture: Vec<u8>,
}

/// An optimizer that has not finished.
struct Running<'a> {
    fit: Fit<'a>,
    name: String,
    lr: f64,
    done: u32,
    time: Duration,
    bar: ProgressBar,
}

impl Race {
    /// Lets each take so many steps.
    pub fn run(adapter: String, picture: &Picture, racers: Vec<(String, Recipe)>, steps: u32) -> Result<Self> {
        let bars = MultiProgress::new();
        let style = ProgressStyle::with_template("{prefix:24} {bar:24} {pos:>6}/{len}  {msg}")?;
        let mut running = Vec::new();
        for (name, recipe) in racers {
            let bar = bars.add(ProgressBar::new(steps.into()).with_style(style.clone()).with_prefix(name.clone()));
            bar.set_message("compiling kernels");
            bar.tick();
            let mut fit = picture.fit(recipe, steps)?;
            fit.step()?;
            fit.losses()?;
            bar.set_message("");
            running.push(Running { fit, lr: recipe.lr(), name, done: 1, time: Duration::ZERO, bar });
        }
        while running.iter().any(|running| running.done < steps) {
            running.iter_mut().try_for_each(|running| running.turn(steps))?;
        }
        bars.clear()?;
        let mut results = running.into_iter().map(|running| running.finish(picture)).collect::<Result<Vec<_>>>()?;
        results.sort_by(|a, b| a.last_loss.total_cmp(&b.last_loss));
        let Picture { width, height, gaussians, .. } = *picture;
        Ok(Self { adapter, width, height, gaussians, steps, results })
    }
}

impl Running<'_> {
    fn turn(&mut self, steps: u32) -> Result<()> {
        let count = TURN.min(steps - self.done);
        let begun = Instant::now();
        for _ in 0..count {
            self.fit.step()?;
        }
        // Waits for the GPU.
        let losses = self.fit.losses()?;
        self.time += begun.elapsed();
        self.done += count;
        let last = losses[losses.len() - 1];
        self.bar.set_position(self.done.into());
        self.bar.set_message(format!("loss {last:.3e}  {:5.2} dB  {:.0} steps/s", psnr(last), self.speed()));
        // Where no terminal shows the bars.
        if self.bar.is_hidden() && (self.done == steps || (self.done / TURN).is_multiple_of(10)) {
            eprintln!("{:24} {:>6}/{steps}  {}", self.name, self.done, self.bar.message());
        }
        Ok(())
    }

    fn speed(&self) -> f64 {
        f64::from(self.done - 1) / self.time.as_secs_f64()
    }

    fn finish(self, picture: &Picture) -> Result<Racer> {
        let (losses, cost) = (self.fit.losses()?, self.fit.optimizer.cost());
        let (first_loss, last_loss) = (losses[0], losses[losses.len() - 1]);
        let result = Racer {
            lr: self.lr,
            first_loss,
            last_loss,
            psnr: psnr(last_loss),
            steps_per_second: self.speed(),
            seconds: self.time.as_secs_f64(),
            memory: cost.memory,
            dispatches: cost.dispatches,
            picture: png(picture, &self.fit.pixels()?)?,
            losses,
            name: self.name,
        };
        self.fit.optimizer.destroy();
        Ok(result)
    }
}

fn psnr(loss: f32) -> f32 {
    -10.0 * loss.log10()
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.results.iter().map(|racer| racer.name.chars().count()).max().unwrap_or(0).max(9);
        writeln!(
            f,
            "{:width$} {:>9} {:>10} {:>8} {:>9} {:>9}",
            "optimizer", "lr", "loss", "PSNR", "steps/s", "seconds"
        )?;
        for racer in &self.results {
            writeln!(
                f,
                "{:width$} {:>9} {:>10.3e} {:>5.2} dB {:>9.1} {:>9.2}",
                racer.name, racer.lr, racer.last_loss, racer.psnr, racer.steps_per_second, racer.seconds
            )?;
        }
        Ok(())
    }
}
