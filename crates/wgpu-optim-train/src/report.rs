//! What a program run leaves behind: summary.json, metrics.csv, the checkpoints, and the table at the end.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Serialize;
use wgpu_optim::Selected;

use crate::pictures;
use crate::train::Run;
use wgpu_optim_train::files;

#[derive(Serialize)]
struct Summary<'a> {
    adapter: &'a str,
    runs: Vec<SummaryRun<'a>>,
}

#[derive(Serialize)]
struct SummaryRun<'a> {
    optimizer: &'a str,
    steps: usize,
    final_loss: f32,
    test_accuracy: f64,
    seconds: f64,
}

/// The directory of the results.
pub struct Output {
    dir: PathBuf,
}

impl Output {
    /// Makes the directory, and sees that files can be written there, before hours are spent on what goes in.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)
            .and_then(|()| files::new_in(dir)?.close())
            .with_context(|| format!("cannot write into the output directory {}", dir.display()))?;
        Ok(Self { dir: dir.into() })
    }

    /// Writes the parameters of one run to `<optimizer>.safetensors`.
    pub fn checkpoint(&self, run: &Run) -> Result<()> {
        let views = run
            .weights
            .iter()
            .map(|w| {
                let bytes = bytemuck::cast_slice(&w.values);
                let view = TensorView::new(Dtype::F32, w.shape.clone(), bytes).with_context(|| w.name.clone())?;
                Ok((w.name.as_str(), view))
            })
            .collect::<Result<Vec<_>>>()?;
        let bytes = safetensors::serialize(views, None).context("cannot pack the checkpoint")?;
        self.write(&format!("{}.safetensors", run.optimizer), &bytes)
    }

    /// Writes summary.json, metrics.csv and loss.svg.
    pub fn report(&self, adapter: &str, data: &str, runs: &[Run]) -> Result<()> {
        let mut json = serde_json::to_string_pretty(&summary(adapter, runs))?;
        json.push('\n');
        self.write("summary.json", json.as_bytes())?;
        self.write("metrics.csv", metrics(runs).as_bytes())?;
        if runs.iter().any(|run| !run.selection.is_empty()) {
            self.write("selection.csv", selection(runs).as_bytes())?;
        }
        if runs.iter().any(|run| !run.telemetry.is_empty()) {
            self.write("telemetry.csv", telemetry(runs).as_bytes())?;
            self.write("telemetry.svg", pictures::telemetry(data, runs)?.as_bytes())?;
        }
        self.write("loss.svg", pictures::loss(data, runs)?.as_bytes())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        files::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where a run's model and optimizer are kept, to go on from.
pub fn checkpoint_file(dir: &Path, optimizer: &str) -> PathBuf {
    dir.join(format!("{optimizer}.checkpoint.safetensors"))
}

fn summary<'a>(adapter: &'a str, runs: &'a [Run]) -> Summary<'a> {
    let runs = runs.iter().map(|run| SummaryRun {
        optimizer: &run.optimizer,
        steps: run.losses.len(),
        final_loss: run.final_loss(),
        test_accuracy: run.accuracy(),
        seconds: run.seconds(),
    });
    Summary { adapter, runs: runs.collect() }
}

/// One line per step, with the test accuracy where it was measured.
fn metrics(runs: &[Run]) -> String {
    let mut csv = String::from("optimizer,step,train_loss,test_accuracy\n");
    for run in runs {
        let mut tests = run.tests.iter().peekable();
        for (index, loss) in run.losses.iter().enumerate() {
            let step = index + 1;
            let test = tests.next_if(|t| t.0 == step);
            let test = test.map_or_else(String::new, |t| t.1.to_string());
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{},{step},{loss},{test}", quoted(&run.optimizer));
        }
    }
    csv
}

/// One line per step and tensor under `mgup`.
fn selection(runs: &[Run]) -> String {
    let mut csv = String::from("optimizer,step,tensor,numel,k,selected,candidates,missed\n");
    for run in runs {
        let numel = |path: &str| run.weights.iter().find(|w| w.name == path).map_or(0, |w| w.values.len());
        for (step, path, found) in run.selection.iter().filter(|(_, _, found)| found.k > 0) {
            let (name, numel, missed) = (quoted(&run.optimizer), numel(path), u8::from(found.missed));
            let Selected { k, count, candidates, .. } = found;
            // Writing to a string cannot fail.
            let _ = writeln!(csv, "{name},{step},{},{numel},{k},{count},{candidates},{missed}", quoted(path));
        }
    }
    csv
}

/// One line per observed step and tensor.
fn telemetry(runs: &[Run]) -> String {
    let mut csv = String::from(
        "optimizer,step,tensor,numel,k,selected,threshold,candidates,missed,alignment,grad_norm,update_norm,\
         non_finite,loss_scale,skipped_steps\n",
    );
    for run in runs {
        for found in &run.telemetry {
            let guarded = found.guarded.map(|guarded| (guarded.loss_scale, guarded.skipped_steps));
            let (scale, skipped) = guarded.unwrap_or((1.0, 0));
            for tensor in &found.tensors {
                // Writing to a string cannot fail.
                let _ = writeln!(
                    csv,
                    "{},{},{},{},{},{},{},{},{},{},{},{},{},{scale},{skipped}",
                    quoted(&run.optimizer),
                    found.step,
                    quoted(&tensor.name),
                    tensor.numel,
                    tensor.k,
                    tensor.selected,
                    tensor.threshold.map_or_else(String::new, |threshold| threshold.to_string()),
                    tensor.candidates,
                    u8::from(tensor.missed),
                    tensor.alignment,
                    tensor.grad_norm,
                    tensor.update_norm,
                    tensor.non_finite,
                );
            }
        }
    }
    csv
}

/// A CSV field: recipe files may have any name.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// The closing table.
pub fn table(runs: &[Run]) -> String {
    let width = runs.iter().map(|r| r.optimizer.chars().count()).max().unwrap_or(0).max("optimizer".len());
    let mut out = format!(
        "{:width$}  {:>7}  {:>10}  {:>13}  {:>8}  {:>8}\n",
        "optimizer", "steps", "final loss", "test accuracy", "seconds", "setup"
    );
    for run in runs {
        let _ = writeln!(
            out,
            "{:width$}  {:>7}  {:>10.5}  {:>11.2} %  {:>8.2}  {:>8.2}",
            run.optimizer,
            run.losses.len(),
            run.final_loss(),
            100.0 * run.accuracy(),
            run.seconds(),
            run.setup.as_secs_f64(),
        );
    }
    out
}
